#!/bin/sh
# Stands in for an application that has its key from a file and reads it again on
# SIGHUP. It shows the public part of the key: its prefix and its id.
file=${1:-orders.key}
take() { printf 'the application took up %.15s\n' "$(cat "$file")"; }
until [ -s "$file" ]; do sleep 1; done
trap take HUP
trap 'rm -f app.pid; exit' INT TERM
echo $$ >app.pid
take
while :; do sleep 1; done
