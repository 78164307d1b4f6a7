vault {
  address = "https://vault.vault.svc:8200"
  ca_cert = "/var/run/vault/ca/ca.crt"
  mount   = "apikeys"

  auth "kubernetes" {
    role       = "edge"
    token_file = "/var/run/vault/token/token"
  }
}

# For a gateway in the same Pod; ../../gateways has its configuration.
listen "auth" {
  address = "127.0.0.1:9090"
  preset  = "nginx"
}

# For the API itself: POST /verify, without a token.
listen "verify" {
  address = "unix:/var/run/apikeys/verify.sock"
}

# Probes and metrics; the network policy says who else may come.
listen "admin" {
  address = ":9091"
}

cache {
  max_staleness  = "1h"
  max_keys       = 50000
  state_file     = "/var/lib/apikeys/edge.state"
  state_key_file = "/var/lib/apikeys/edge.key"
}

rule {
  methods = ["GET", "HEAD"]
  path    = "/orders/**"
  scopes  = ["orders:read"]
}
