# Prometheus, or what scrapes for it: the engine's numbers, and nothing else. With `config
# metrics_role_labels` they name roles.

path "apikeys/metrics" {
  capabilities = ["read"]
}
