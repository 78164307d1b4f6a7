# SPDX-License-Identifier: MPL-2.0

variable "mount" {
  description = "Where the engine is mounted."
  type        = string
  default     = "apikeys"
}

variable "plugin_version" {
  description = "The version of the plugin that the mount runs. Null: the one that the server chooses."
  type        = string
  default     = null
}

variable "rotations" {
  description = "Role => a name for a rotation of it, such as a date. Another name rotates once."
  type        = map(string)
  default     = {}
}

variable "deletion_protection" {
  description = "False, for one apply, is what makes it possible to take roles away."
  type        = bool
  default     = true
}
