# A gateway or API that verifies the keys that it is shown. Whoever may verify
# can test guesses, so give it to machines only. To bind a gateway to the keys
# of one role, allow apikeys/verify/<role> in place of apikeys/verify, and
# apikeys/usage/<role> in place of apikeys/usage.

path "apikeys/verify" {
  capabilities = ["update"]
}

# How often which key was used, for keys verified from a cache.
path "apikeys/usage" {
  capabilities = ["update"]
}

path "apikeys/key-format" {
  capabilities = ["read"]
}
