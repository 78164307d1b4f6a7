# SPDX-License-Identifier: MPL-2.0

terraform {
  required_version = ">= 1.5"

  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 5.9"
    }
  }
}

# Address and token come from VAULT_ADDR and VAULT_TOKEN.
provider "vault" {}

# One mount for all teams, so that gateways verify at one place.
module "apikeys" {
  source = "../modules/apikeys"

  mount          = var.mount
  plugin_version = var.plugin_version
  rotations      = var.rotations
  policies       = ["reader", "rotator", "gateway"]

  config = {
    delete_recovery = 7 * 24 * 3600
  }

  # No name of a team or of a role of it holds a dot, so the dot tells them apart.
  roles = merge([for team, t in local.teams : {
    for role, fields in t.roles : "${team}.${role}" => merge({
      owner               = t.owner
      deletion_protection = var.deletion_protection
    }, fields)
  }]...)
}

# What the people of a team may do with the keys of their team: all of it, but see them.
resource "vault_policy" "team" {
  for_each = local.teams

  name   = "${replace(module.apikeys.mount, "/", "-")}-team-${each.key}"
  policy = templatefile("${path.module}/team.hcl.tftpl", { mount = module.apikeys.mount, team = each.key })
}
