#!/bin/sh
# Stops what runs from a package that goes, and leaves it alone where a newer one comes.
set -e
case ${1:-} in
remove | 0) ;;
*) exit 0 ;;
esac
[ ! -d /run/systemd/system ] || systemctl disable --now apikeys-edge.service 'apikeys-proxy@*.service'
