# Copy to /etc/apikeys/edge.hcl, then: systemctl enable --now apikeys-edge
vault {
  address = "https://vault.example.com:8200"
  mount   = "apikeys"
  auth "approle" {
    role_id        = "apikeys-edge"
    secret_id_file = "/etc/apikeys/edge.secret-id"
  }
}
listen "auth" {
  address = "127.0.0.1:9090"
  preset  = "nginx"
}
listen "admin" {
  address = "127.0.0.1:9091"
}
cache {
  state_file     = "/var/lib/apikeys-edge/state"
  state_key_file = "/var/lib/apikeys-edge/key"
}
rule {
  methods = ["GET", "HEAD"]
  path    = "/orders/**"
  scopes  = ["orders:read"]
}
