# SPDX-License-Identifier: MPL-2.0

# The engine takes a value in several forms, "90d" as well as 7776000, and answers in one.
# A plan compares what was written with what is read, so any other form is a change that no
# apply ends. This is the one form of each field, as a pattern of its JSON.
locals {
  form = {
    text    = "^\""
    number  = "^[0-9]+([.][0-9]+)?$"
    bool    = "^(true|false)$"
    list    = "^\\[(\"([^\"\\\\]|\\\\.)*\",?)*\\]$"
    numbers = "^\\[([0-9]+,?)*\\]$"
    map     = "^\\{(\"([^\"\\\\]|\\\\.)*\":\"([^\"\\\\]|\\\\.)*\",?)*\\}$"
  }

  # How each is written, for messages.
  form_says = {
    text    = "a text in quotes"
    number  = "a number without quotes; of a duration the seconds, such as 24 * 3600"
    bool    = "true or false, without quotes"
    list    = "a list of texts, such as [\"orders:read\"]"
    numbers = "a list of numbers; of durations the seconds, such as [7 * 24 * 3600]"
    map     = "a map of texts, such as { env = \"prod\" }"
  }

  role_fields = {
    type                = "text"
    description         = "text"
    owner               = "text"
    metadata            = "map"
    scopes              = "list"
    prefix              = "text"
    ttl                 = "number"
    max_ttl             = "number"
    rotation_period     = "number"
    rotation_schedule   = "text"
    rotation_window     = "number"
    rotation_jitter     = "number"
    rotation_paused     = "bool"
    grace_period        = "number"
    max_grace_period    = "number"
    valid_until         = "text"
    refresh_interval    = "number"
    reveal              = "text"
    allowed_cidrs       = "list"
    rate_limit          = "number"
    on_leak             = "text"
    leak_grace_period   = "number"
    disabled            = "bool"
    deletion_protection = "bool"
  }

  config_fields = {
    rotation_paused          = "bool"
    max_rotations_per_second = "number"
    stage_ahead              = "number"
    delete_recovery          = "number"
    max_leak_actions         = "number"
    trust_reported_usage     = "bool"
    trusted_reporters        = "list"
    allow_weak_imports       = "bool"
    cache_size               = "number"
    count_reads              = "bool"
    edge_max_staleness       = "number"
    feed_wait                = "number"
    egress_allow             = "list"
    egress_proxy             = "text"
    metrics_role_labels      = "bool"
    outbound_paused          = "bool"
    notify_before            = "numbers"
  }

  # The secrets of an endpoint are not among them: they would stand in the state.
  endpoint_fields = {
    url         = "text"
    types       = "list"
    name_prefix = "text"
    format      = "text"
    template    = "text"
    include     = "list"
    digest      = "number"
    pace        = "number"
    ca          = "text"
    disabled    = "bool"
  }

  # A null is a field that is not named.
  config    = { for field, value in var.config : field => value if value != null }
  roles     = { for role, fields in var.roles : role => { for field, value in fields : field => value if value != null } }
  endpoints = { for name, fields in var.endpoints : name => { for field, value in fields : field => value if value != null } }

  # Complaints are texts, and empty ones are dropped.
  config_complaints = compact([for field, value in local.config : (
    !contains(keys(local.config_fields), field) ? "${field} is no field of config" :
    can(regex(local.form[local.config_fields[field]], jsonencode(value))) ? "" :
    "${field}: ${local.form_says[local.config_fields[field]]}"
  )])

  role_complaints = { for role, fields in local.roles : role => compact([for field, value in fields : (
    !contains(keys(local.role_fields), field) ? "${field} is no field of a role" :
    can(regex(local.form[local.role_fields[field]], jsonencode(value))) ? "" :
    "${field}: ${local.form_says[local.role_fields[field]]}"
  )]) }

  endpoint_complaints = { for name, fields in local.endpoints : name => compact([for field, value in fields : (
    !contains(keys(local.endpoint_fields), field) ? "${field} is no field of an endpoint that may stand in a configuration" :
    can(regex(local.form[local.endpoint_fields[field]], jsonencode(value))) ? "" :
    "${field}: ${local.form_says[local.endpoint_fields[field]]}"
  )]) }
}
