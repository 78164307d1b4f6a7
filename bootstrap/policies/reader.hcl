# An application that reads its own key. For a role of type dynamic the token
# needs to renew and give back leases too, which the policy `default` allows.

path "apikeys/creds/orders" {
  capabilities = ["read"]
}
