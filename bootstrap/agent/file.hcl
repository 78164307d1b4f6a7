# Keeps the current key of the static role `orders` in the file orders.key. Beside one
# of the login files.

template {
  contents    = "{{ with secret \"apikeys/creds/orders\" }}{{ .Data.api_key }}{{ end }}"
  destination = "orders.key"
  perms       = "0600"

  # A wrong field is an error, in place of the text `<no value>` in the file.
  error_on_missing_key = true

  # Runs each time the file was written, to tell the application: `systemctl reload
  # orders` or, as here, a signal to the process whose id is in app.pid. It must end
  # well, within its 30 seconds: an agent whose command failed reads again but runs
  # the command no second time.
  exec {
    command = ["sh", "-c", "if [ -s app.pid ]; then kill -HUP $(cat app.pid); fi || true"]
  }
}
