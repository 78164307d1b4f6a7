# An application that reads its own key. For a role of type dynamic the token
# needs to renew its leases too, which the policy `default` allows. To give a
# lease back early is not in `default`: let the token revoke itself, which ends
# its leases, or allow update on sys/leases/revoke, which takes the id of any.

path "apikeys/creds/orders" {
  capabilities = ["read"]
}
