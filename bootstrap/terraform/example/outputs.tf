# SPDX-License-Identifier: MPL-2.0

output "policies" {
  description = "Kind => role => policy, for machines."
  value       = module.apikeys.policies
}

output "teams" {
  description = "Team => policy, for people."
  value       = { for team, p in vault_policy.team : team => p.name }
}

output "rotations" {
  description = "What the last rotation of each role from here answered. Never a key."
  value       = module.apikeys.rotations
}
