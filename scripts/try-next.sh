#!/bin/sh
# Prints the three commands to try on a server at the address given, with the
# client that this machine has: the second argument, bao, vault or curl.
set -eu

cli=${2:-}
for c in bao vault; do
	[ -n "$cli" ] || ! command -v $c >/dev/null || cli=$c
done

echo
echo "Try next, in another terminal:"
echo
if [ -n "$cli" ]; then
	cat <<-END
		  export VAULT_ADDR=$1 VAULT_TOKEN=root

		  $cli write apikeys/roles/orders scopes=orders:read owner=team-orders
		  $cli read apikeys/creds/orders
		  $cli write apikeys/rotate/orders reason="to see it happen"
	END
else
	cat <<-END
		  auth='X-Vault-Token: root'

		  curl -H "\$auth" $1/v1/apikeys/roles/orders -d '{"scopes": ["orders:read"], "owner": "team-orders"}'
		  curl -H "\$auth" $1/v1/apikeys/creds/orders
		  curl -H "\$auth" $1/v1/apikeys/rotate/orders -d '{"reason": "to see it happen"}'
	END
fi
echo
echo "Ctrl-C stops the server."
echo
