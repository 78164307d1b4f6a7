# SPDX-License-Identifier: MPL-2.0

terraform {
  required_version = ">= 1.5"
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 5.0"
    }
  }
}

# Address and token come from VAULT_ADDR and VAULT_TOKEN.
provider "vault" {}

locals {
  role = "orders"
}

# Destroying the mount destroys every key in it, so terraform must be told twice.
# Another var.mount would move it, and destroy and make anew every role, whose paths
# begin with it. So the path is fixed once it is there, and another value is refused.
resource "vault_mount" "apikeys" {
  path        = var.mount
  type        = "vault-plugin-secrets-apikeys"
  description = "API keys: issued, rotated, verified and revoked here"

  lifecycle {
    prevent_destroy = true
    ignore_changes  = [path]

    postcondition {
      condition     = self.path == var.mount
      error_message = "The engine is mounted at \"${self.path}\" and var.mount is \"${var.mount}\": give every command the same, best in terraform.tfvars. README.md says how to move a mount."
    }
  }
}

# One role is one logical key. Reading the role shows neither a key nor anything
# that changes by itself, so a plan stays empty while the keys rotate.
resource "vault_generic_endpoint" "orders" {
  path = "${vault_mount.apikeys.path}/roles/${local.role}"

  # The engine answers with every field; only those below are managed here.
  ignore_absent_fields = true

  # Values are written as they are read back: durations in whole seconds, lists as lists.
  data_json = jsonencode({
    owner           = "team-orders"
    description     = "key of the orders service for the payment API"
    scopes          = ["payments:read", "payments:refund"]
    prefix          = "acme_live"
    rotation_period = 90 * 24 * 3600
    grace_period    = 24 * 3600

    # A destroy would end the key: the engine refuses it until this is false.
    deletion_protection = true

    # Fields that are not named here get their defaults. Without it a field that is
    # taken away keeps the value that it had. It is never read back.
    replace = true
  })
}

# Policies are the server's, not the mount's: the name tells one mount's from another's.
resource "vault_policy" "orders_reader" {
  name   = "${replace(vault_mount.apikeys.path, "/", "-")}-${local.role}-reader"
  policy = <<-EOT
    path "${vault_mount.apikeys.path}/creds/${local.role}" {
      capabilities = ["read"]
    }
  EOT
}

# A rotation by hand is a deliberate act: change var.rotation and apply. Applying
# again does nothing, and a lost answer can be repeated, since the request_id
# makes it the same rotation. The answer holds no key, nor does the state.
resource "terraform_data" "rotation" {
  input = var.rotation
}

resource "vault_generic_endpoint" "orders_rotation" {
  count = var.rotation == "" ? 0 : 1

  path           = "${vault_mount.apikeys.path}/rotate/${local.role}"
  disable_read   = true
  disable_delete = true
  write_fields   = ["version", "key_id", "previous_valid_until"]

  data_json = jsonencode({
    request_id = "terraform/${var.rotation}"
    reason     = "terraform: ${var.rotation}"
  })

  depends_on = [vault_generic_endpoint.orders]

  # A new resource per rotation: after a change in place the output would still show
  # what the previous rotation answered.
  lifecycle {
    replace_triggered_by = [terraform_data.rotation]
  }
}
