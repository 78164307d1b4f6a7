# Vault Agent or OpenBao Agent: keeps the current key of the role orders in a
# file. It reads again when the key's ttl is over, which is never later than
# half the grace after a rotation, so the file never holds a dead key.

vault {
  address = "http://127.0.0.1:8200"
}

auto_auth {
  # For trying it out: whatever token is in the file. On real machines use the
  # method that fits them: approle, kubernetes, cert, aws, …
  method "token_file" {
    config = {
      token_file_path = "token"
    }
  }
}

template_config {
  # While the server is away the file keeps its last key, and the agent goes on
  # trying instead of giving up.
  exit_on_retry_failure = false
}

template {
  source      = "orders.key.ctmpl"
  destination = "orders.key"
  perms       = "0600"

  error_on_missing_key = true

  # What the application needs in order to take up the new key, if it does not
  # watch the file by itself.
  exec {
    command = ["sh", "-c", "echo the key of orders was renewed"]
  }
}
