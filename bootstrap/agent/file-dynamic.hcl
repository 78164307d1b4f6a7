# Keeps a key of this agent's own of the dynamic role `jobs` in the file jobs.key: the
# agent renews its lease, and reads another key before the lease cannot be renewed any
# longer. Beside one of the login files.

template {
  contents    = "{{ with secret \"apikeys/creds/jobs\" }}{{ .Data.api_key }}{{ end }}"
  destination = "jobs.key"
  perms       = "0600"

  error_on_missing_key = true

  # As in file.hcl. That it must end well counts twice here: an agent whose command
  # failed issues another key, writes it, runs the command again, and so on.
  exec {
    command = ["sh", "-c", "if [ -s app.pid ]; then kill -HUP $(cat app.pid); fi || true"]
  }
}
