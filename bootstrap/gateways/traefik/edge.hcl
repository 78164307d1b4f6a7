vault {
  address    = "http://127.0.0.1:8200"
  mount      = "apikeys"
  token_file = "token"
}

listen "auth" {
  address = "127.0.0.1:9090"
  preset  = "traefik"
}

listen "admin" {
  address = "127.0.0.1:9091"
}

cache {
  state_file     = "edge.state"
  state_key_file = "edge.key"
}

rule {
  methods = ["GET", "HEAD"]
  path    = "/orders/**"
  scopes  = ["orders:read"]
}

rule {
  path = "/status"
}
