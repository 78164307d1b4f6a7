# SPDX-License-Identifier: MPL-2.0

output "mount" {
  description = "The path of the engine."
  value       = vault_mount.apikeys.path
}

output "policies" {
  description = "Kind => role => the policy's name. Attach them to whoever reads, rotates or verifies."
  value = { for kind in var.policies :
    kind => { for name, p in local.policies : p.role => name if p.kind == kind }
  }

  # By the names and not by the resources: those are not all there during an import.
  depends_on = [vault_policy.role]
}

output "rotations" {
  description = "Role => what its last rotation from here answered: version, key id, end of the previous version. Never a key."
  value       = { for role, r in vault_generic_endpoint.rotation : role => r.write_data }
}
