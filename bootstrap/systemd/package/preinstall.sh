#!/bin/sh
# Whom the services run as; their files are given to that group.
set -e
getent group apikeys >/dev/null || groupadd --system apikeys
getent passwd apikeys >/dev/null ||
	useradd --system --gid apikeys --no-create-home --home-dir /var/lib/apikeys-edge --shell /usr/sbin/nologin \
		--comment "API keys, edge and proxy" apikeys
