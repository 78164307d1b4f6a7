# What this configuration needs, for a mount at apikeys-teams/. Leave out "delete" of
# roles, and no apply can take one away.

path "sys/mounts/apikeys-teams" {
  capabilities = ["create", "read", "update"]
}

path "sys/mounts/apikeys-teams/tune" {
  capabilities = ["read", "update"]
}

path "sys/policies/acl/apikeys-teams-*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "apikeys-teams/config" {
  capabilities = ["read", "update"]
}

path "apikeys-teams/roles/*" {
  capabilities = ["create", "read", "update", "delete"]
}

path "apikeys-teams/rotate/*" {
  capabilities = ["update"]
}

# The provider works with a child of the token that it is given, which lives for 20 minutes.
path "auth/token/create" {
  capabilities = ["update"]
}
