# An edge that knows the keys of one role, orders here: put the name of yours in its
# place, and tell the edge (Role in the library, role in the vault block of apikeys
# edge). The feed tells of decisions about every role of the mount, by role_id.

path "apikeys/verify/orders" {
  capabilities = ["update"]
}

path "apikeys/changes" {
  capabilities = ["read", "update"]
}

path "apikeys/usage/orders" {
  capabilities = ["update"]
}
