#!/bin/sh
# Stands in for an application that has its key from the environment. It shows the
# public part of the key: its prefix and its id.
printf 'the application runs with %.15s\n' "${ORDERS_API_KEY:-$JOBS_API_KEY}"
exec sleep 86400
