# SPDX-License-Identifier: MPL-2.0

# Nothing in this module needs more than Terraform 1.5, or any OpenTofu.
terraform {
  required_version = ">= 1.5"

  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 5.9"
    }
  }
}
