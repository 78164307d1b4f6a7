# SPDX-License-Identifier: MPL-2.0

variable "mount" {
  description = "Where the engine is mounted. Once it is, another value is refused: it never moves a mount."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[^/ ]+(/[^/ ]+)*$", var.mount))
    error_message = "A path without a slash at either end, such as apikeys or team-a/apikeys."
  }
}

variable "description" {
  description = "What the server's list of mounts says of it."
  type        = string
  default     = "API keys: issued, rotated, verified and revoked here"
  nullable    = false
}

variable "plugin_version" {
  description = "The version of the plugin that the mount runs, as registered, such as v0.1.0. Null: the one that the server chooses. A change takes effect when the plugin is reloaded."
  type        = string
  default     = null
}

# Roles, endpoints and config are `any` on purpose. A declared object type drops names that it
# does not know, so that a misspelt allowed_cidrs would be a key without them; here it is
# an error of the plan.

variable "config" {
  description = "Fields of the mount's config. Those that are not named have their defaults."
  type        = any
  default     = {}
  nullable    = false
}

variable "roles" {
  description = "Role name => its fields. Those that are not named have their defaults, but for deletion_protection, which is true."
  type        = any
  default     = {}
  nullable    = false
}

variable "endpoints" {
  description = "Endpoint name => its fields but for its secrets, which would stand in the state. Those that are not named have their defaults."
  type        = any
  default     = {}
  nullable    = false
}

variable "rotations" {
  description = "Role name => a name for its last rotation by hand, such as a date or a ticket. Another name rotates the role's key once. Empty: none."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in values(var.rotations) : can(regex("^[A-Za-z0-9._:-]{0,64}$", name))])
    error_message = "Letters, digits and . _ : - only, at most 64: it becomes part of the request id."
  }
}

variable "policies" {
  description = "Which policies each role gets: reader (its current key), rotator (rotate it, see its state), gateway (verify its keys)."
  type        = set(string)
  default     = ["reader"]
  nullable    = false

  validation {
    condition     = length(setsubtract(var.policies, ["reader", "rotator", "gateway"])) == 0
    error_message = "Any of reader, rotator and gateway."
  }
}
