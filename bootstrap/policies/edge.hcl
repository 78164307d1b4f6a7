# An edge: it verifies the keys that it is shown, follows what is decided about them,
# and reports their use. Whoever may verify can test guesses, so give it to machines
# only. The feed tells of decisions about every role of the mount, by role_id.
#
# To bind an edge to the keys of one role, begin with edge-role.hcl.

path "apikeys/verify" {
  capabilities = ["update"]
}

path "apikeys/changes" {
  capabilities = ["read", "update"]
}

path "apikeys/usage" {
  capabilities = ["update"]
}
