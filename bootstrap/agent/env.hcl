# Runs an application with the current key of the static role `orders` in its
# environment, and runs it anew with each new key. Beside one of the login files.
# Every setting but the name of the variable is the template's, as in file.hcl.

env_template "ORDERS_API_KEY" {
  contents             = "{{ with secret \"apikeys/creds/orders\" }}{{ .Data.api_key }}{{ end }}"
  error_on_missing_key = true
}

exec {
  command = ["sh", "app-env.sh"]

  # The agent waits for two seconds, sends this signal, gives the application up to
  # 30 seconds to end, and starts it with the new key.
  restart_on_secret_changes = "always"
  restart_stop_signal       = "SIGTERM"
}
