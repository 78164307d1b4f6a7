# Where the server is and how the agent logs in, for trying it out: with the token in
# the file `token`. VAULT_ADDR, where it is set, overrides the address.

vault {
  address = "http://127.0.0.1:8200"
}

auto_auth {
  method "token_file" {
    # The longest pause between two attempts, to log in and to read the key. Without
    # it pauses grow up to five minutes while the server is away, and a key may have
    # ended before the agent asks again.
    max_backoff = "10s"

    config = {
      token_file_path = "token"
    }
  }
}

template_config {
  # While the server is away what is there stays, and the agent goes on asking.
  exit_on_retry_failure = false
}
