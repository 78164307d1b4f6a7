# A program with the client library, or `apikeys proxy`: it reads its own key, and
# reports that it has moved to a new version. For a role of type dynamic the token needs
# to renew its leases too, which the policy `default` allows. A lease that is not needed
# any more ends with the token, which the library revokes where it has logged in itself.

path "apikeys/creds/orders" {
  capabilities = ["read"]
}

path "apikeys/usage/orders" {
  capabilities = ["update"]
}
