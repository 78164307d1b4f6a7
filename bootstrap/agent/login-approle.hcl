# Where the server is and how the agent logs in, on a machine that has no identity of
# its own: with the role id and the secret id in two files. Where there is a platform
# that vouches for the machine use its method: kubernetes, jwt, cert, aws, …

vault {
  address = "http://127.0.0.1:8200"
}

auto_auth {
  method "approle" {
    # As in login-token.hcl.
    max_backoff = "10s"

    config = {
      role_id_file_path   = "role-id"
      secret_id_file_path = "secret-id"

      # An agent that is started again logs in again. Leave it out where something
      # puts a new secret id there before each start.
      remove_secret_id_file_after_reading = false
    }
  }
}

template_config {
  exit_on_retry_failure = false
}
