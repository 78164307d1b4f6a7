# SPDX-License-Identifier: MPL-2.0

variable "mount" {
  description = "Where the engine is mounted."
  type        = string
  default     = "apikeys"

  validation {
    condition     = can(regex("^[^/ ]+(/[^/ ]+)*$", var.mount))
    error_message = "A path without a slash at either end, such as apikeys or team-a/apikeys."
  }
}

variable "rotation" {
  description = "Change this, to a date or a ticket number, to rotate the role's key now. Empty: only the schedule rotates."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[A-Za-z0-9._:-]{0,64}$", var.rotation))
    error_message = "Letters, digits and . _ : - only, at most 64: it becomes part of the request id."
  }
}
