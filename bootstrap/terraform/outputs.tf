# SPDX-License-Identifier: MPL-2.0

output "policy" {
  description = "Attach this policy to whoever reads the key."
  value       = vault_policy.orders_reader.name
}

output "rotation" {
  description = "What the last rotation from here answered: version, key id, end of the previous version. Never a key."
  value       = try(vault_generic_endpoint.orders_rotation[0].write_data, null)
}
