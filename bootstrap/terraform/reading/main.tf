# SPDX-License-Identifier: MPL-2.0

# Ephemeral values need Terraform 1.10, or OpenTofu 1.11.
terraform {
  required_version = ">= 1.10"

  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 5.9"
    }
  }
}

provider "vault" {}

variable "mount" {
  description = "Where the engine is mounted."
  type        = string
  default     = "apikeys"
}

variable "role" {
  description = "Whose key is read."
  type        = string
  default     = "orders"
}

# Reads the current key in each plan and each apply, and keeps it out of both and of the
# state. Nothing ends what is read here: a role of type dynamic would issue a key each time,
# which lives until its lease ends. One with reveal=once refuses a reader that is repeatable.
ephemeral "vault_generic_endpoint" "key" {
  path         = "${var.mount}/creds/${var.role}"
  data_json    = jsonencode({ repeatable = true })
  write_fields = ["api_key", "key_id"]
}

# What takes the key: a provider's configuration or a write-only argument. Here it is
# presented, as an API would present it.
ephemeral "vault_generic_endpoint" "verdict" {
  path         = "${var.mount}/verify/${var.role}"
  data_json    = jsonencode({ key = ephemeral.vault_generic_endpoint.key.write_data["api_key"] })
  write_fields = ["code"]
}

# The plan fails if the key is no good. That would better be a postcondition above, but
# `terraform show -json` of 1.11 crashes on a plan with one of an ephemeral resource.
locals {
  verdict = regex("^VALID$", ephemeral.vault_generic_endpoint.verdict.write_data["code"])
}
