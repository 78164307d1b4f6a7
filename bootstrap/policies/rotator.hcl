# A pipeline that rotates one role and watches the result. It never sees a key.

path "apikeys/rotate/orders" {
  capabilities = ["update"]
}

path "apikeys/promote/orders" {
  capabilities = ["update"]
}

path "apikeys/rollback/orders" {
  capabilities = ["update"]
}

path "apikeys/grace/orders" {
  capabilities = ["update"]
}

path "apikeys/status/orders" {
  capabilities = ["read"]
}

path "apikeys/history/orders" {
  capabilities = ["read", "list"]
}

path "apikeys/history/orders/" {
  capabilities = ["list"]
}

path "apikeys/versions/orders" {
  capabilities = ["list"]
}

path "apikeys/versions/orders/" {
  capabilities = ["list"]
}
