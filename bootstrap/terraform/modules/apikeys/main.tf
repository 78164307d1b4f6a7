# SPDX-License-Identifier: MPL-2.0

# Destroying the mount destroys every key in it, so Terraform never does.
# Another var.mount would move it, and destroy and make anew every role, whose paths
# begin with it. So the path is fixed once it is there, and another value is refused.
resource "vault_mount" "apikeys" {
  path           = var.mount
  type           = "vault-plugin-secrets-apikeys"
  description    = var.description
  plugin_version = var.plugin_version

  lifecycle {
    prevent_destroy = true
    ignore_changes  = [path]

    postcondition {
      condition     = self.path == var.mount
      error_message = "The engine is mounted at \"${self.path}\" and the variable mount is \"${var.mount}\": give every command the same. docs/terraform.md says how to move a mount."
    }
  }
}

# Fields that are not named get their defaults, because of replace: without it a field
# that is taken away keeps the value that it had. It is never read back.
resource "vault_generic_endpoint" "config" {
  path = "${vault_mount.apikeys.path}/config"

  # The engine answers with every field; only those below are managed here.
  ignore_absent_fields = true
  disable_delete       = true

  data_json = jsonencode(merge(local.config, { replace = true }))

  lifecycle {
    precondition {
      condition     = length(local.config_complaints) == 0
      error_message = "config: ${join("; ", local.config_complaints)}."
    }
  }
}

# One role is one logical key. Reading the role shows neither a key nor anything
# that changes by itself, so a plan stays empty while the keys rotate.
resource "vault_generic_endpoint" "role" {
  for_each = local.roles

  path                 = "${vault_mount.apikeys.path}/roles/${each.key}"
  ignore_absent_fields = true

  # A destroy would end the key: the engine refuses it until the protection is false.
  data_json = jsonencode(merge({ deletion_protection = true }, each.value, { replace = true }))

  # The limits of the config hold for what a role may be.
  depends_on = [vault_generic_endpoint.config]

  lifecycle {
    precondition {
      condition     = length(local.role_complaints[each.key]) == 0
      error_message = "Role ${each.key}: ${join("; ", local.role_complaints[each.key])}."
    }
  }
}

# An endpoint is told what happens. The engine makes its signing secret, which is in no
# answer that is kept: rotate-secret shows one, by hand.
resource "vault_generic_endpoint" "endpoint" {
  for_each = local.endpoints

  path                 = "${vault_mount.apikeys.path}/events/${each.key}"
  ignore_absent_fields = true

  data_json = jsonencode(merge(each.value, { replace = true }))

  # Where it may be is in egress_allow.
  depends_on = [vault_generic_endpoint.config]

  lifecycle {
    precondition {
      condition     = length(local.endpoint_complaints[each.key]) == 0
      error_message = "Endpoint ${each.key}: ${join("; ", local.endpoint_complaints[each.key])}."
    }
  }
}

# A rotation by hand is a deliberate act: name another one and apply. Applying again
# does nothing, and a lost answer can be repeated, since the request_id makes it the
# same rotation. The answer holds no key, nor does the state.
#
# The ephemeral resource of the same name is not for this: it would write in each plan.
resource "terraform_data" "rotation" {
  for_each = local.rotations
  input    = each.value

  # Were it changed while a role cannot be written, the rotation would no longer be replaced.
  depends_on = [vault_generic_endpoint.role]
}

resource "vault_generic_endpoint" "rotation" {
  for_each = local.rotations

  path           = "${vault_mount.apikeys.path}/rotate/${each.key}"
  disable_read   = true
  disable_delete = true
  write_fields   = ["version", "key_id", "previous_valid_until"]

  data_json = jsonencode({
    request_id = "terraform/${each.value}"
    reason     = "terraform: ${each.value}"
  })

  depends_on = [vault_generic_endpoint.role]

  lifecycle {
    # A new resource per rotation: after a change in place the output would still show
    # what the previous rotation answered.
    replace_triggered_by = [terraform_data.rotation[each.key]]

    precondition {
      condition     = contains(keys(local.roles), each.key)
      error_message = "rotations names the role ${each.key}, which roles does not have."
    }
  }
}

locals {
  rotations = { for role, name in var.rotations : role => name if name != "" }

  # Policies are the server's, not the mount's: the name tells one mount's from another's.
  policies = { for p in setproduct(keys(local.roles), var.policies) :
    "${replace(vault_mount.apikeys.path, "/", "-")}-${p[0]}-${p[1]}" => { role = p[0], kind = p[1] }
  }
}

resource "vault_policy" "role" {
  for_each = local.policies

  name = each.key
  policy = templatefile("${path.module}/policies/${each.value.kind}.hcl.tftpl", {
    mount = vault_mount.apikeys.path
    role  = each.value.role
  })
}
