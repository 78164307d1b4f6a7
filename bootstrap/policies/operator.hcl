# The platform team: everything but the keys themselves. What gateways do, to
# verify keys and to report their use, is not in here either: see gateway.hcl.

path "apikeys/config" {
  capabilities = ["read", "update", "patch"]
}

path "apikeys/config/rotate-digest" {
  capabilities = ["update"]
}

path "apikeys/roles/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list"]
}

path "apikeys/rotate/*" {
  capabilities = ["update"]
}

path "apikeys/promote/*" {
  capabilities = ["update"]
}

path "apikeys/rollback/*" {
  capabilities = ["update"]
}

path "apikeys/grace/*" {
  capabilities = ["update"]
}

path "apikeys/revoke/*" {
  capabilities = ["update"]
}

path "apikeys/restore/*" {
  capabilities = ["list", "update"]
}

path "apikeys/status/*" {
  capabilities = ["read"]
}

path "apikeys/history/*" {
  capabilities = ["read", "list"]
}

path "apikeys/versions/*" {
  capabilities = ["list"]
}

path "apikeys/metrics" {
  capabilities = ["read"]
}

path "apikeys/problems/*" {
  capabilities = ["list"]
}

path "apikeys/keys/*" {
  capabilities = ["list"]
}

path "apikeys/lookup" {
  capabilities = ["update"]
}

path "apikeys/inventory/*" {
  capabilities = ["list"]
}

path "apikeys/calendar" {
  capabilities = ["read", "list"]
}

path "apikeys/calendar/" {
  capabilities = ["list"]
}

path "apikeys/report" {
  capabilities = ["update"]
}

# Reports that came too many at once, and what acts on them.
path "apikeys/report/deferred" {
  capabilities = ["list"]
}

path "apikeys/report/deferred/" {
  capabilities = ["list"]
}

path "apikeys/report/release" {
  capabilities = ["update"]
}

path "apikeys/import" {
  capabilities = ["update"]
}

path "apikeys/bulk" {
  capabilities = ["update", "list"]
}

path "apikeys/bulk/" {
  capabilities = ["list"]
}

path "apikeys/bulk/*" {
  capabilities = ["read", "delete"]
}

# Endpoints of events. Who writes them says where events go, and with what secrets.
path "apikeys/events/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list"]
}

path "apikeys/tidy" {
  capabilities = ["update"]
}

path "apikeys/key-format" {
  capabilities = ["read"]
}

# Stated, because another policy of the same person may allow it.
path "apikeys/creds/*" {
  capabilities = ["deny"]
}
