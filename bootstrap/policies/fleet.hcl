# `apikeys fleet`: what the report of a mount is made of. It sees the names, owners and
# states of all roles, and no key.

path "apikeys/inventory/*" {
  capabilities = ["list"]
}

path "apikeys/problems/*" {
  capabilities = ["list"]
}

path "apikeys/calendar" {
  capabilities = ["read"]
}

path "apikeys/status/*" {
  capabilities = ["read"]
}
