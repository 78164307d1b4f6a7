# What this configuration needs, for a mount at apikeys-tf/. Leave out "delete" of
# roles, and no apply can take one away.

path "sys/mounts/apikeys-tf" {
  capabilities = ["create", "read", "update"]
}

path "sys/mounts/apikeys-tf/tune" {
  capabilities = ["read", "update"]
}

path "sys/policies/acl/apikeys-tf-orders-reader" {
  capabilities = ["create", "read", "update", "delete"]
}

path "apikeys-tf/roles/*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "apikeys-tf/rotate/*" {
  capabilities = ["update"]
}

# The provider works with a child of the token that it is given, which lives for 20 minutes.
path "auth/token/create" {
  capabilities = ["update"]
}
