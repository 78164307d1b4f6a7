# Keeps a token for Prometheus in the file token, which prometheus.yml names. It may read
# apikeys/metrics and nothing else, and it is periodic: the agent renews it, and writes
# another one where that fails. Prometheus reads the file at each scrape.
#
# Set up as the operator that you are:
#
#     vault policy write apikeys-metrics ../policies/metrics.hcl
#     vault auth enable approle
#     vault write auth/approle/role/prometheus token_policies=apikeys-metrics token_period=1h
#     vault read -field=role_id auth/approle/role/prometheus/role-id > role-id
#     (umask 077; vault write -f -field=secret_id auth/approle/role/prometheus/secret-id > secret-id)
#     env -u VAULT_TOKEN vault agent -config=agent.hcl
#
# Where there is a platform that vouches for the machine use its method in place of
# approle: kubernetes, jwt, cert, aws, …

vault {
  address = "http://127.0.0.1:8200"
}

auto_auth {
  method "approle" {
    # As in ../agent/login-token.hcl.
    max_backoff = "10s"

    config = {
      role_id_file_path   = "role-id"
      secret_id_file_path = "secret-id"

      # An agent that is started again logs in again.
      remove_secret_id_file_after_reading = false
    }
  }

  sink "file" {
    config = {
      path = "token"
      mode = 384 # 0600: Prometheus and the agent run as the same user
    }
  }
}
