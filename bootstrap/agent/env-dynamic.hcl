# Runs an application with a key of its own of the dynamic role `jobs` in its
# environment. The agent renews the lease, and runs the application anew with another
# key before the lease cannot be renewed any longer. Beside one of the login files.

env_template "JOBS_API_KEY" {
  contents             = "{{ with secret \"apikeys/creds/jobs\" }}{{ .Data.api_key }}{{ end }}"
  error_on_missing_key = true
}

exec {
  command = ["sh", "app-env.sh"]

  # As in env.hcl.
  restart_on_secret_changes = "always"
  restart_stop_signal       = "SIGTERM"
}
