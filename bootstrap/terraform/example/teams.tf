# SPDX-License-Identifier: MPL-2.0

# Whose keys there are. A team changes its own part of this file, or has a file of its own.
locals {
  teams = {
    orders = {
      owner = "team-orders@example.com"
      roles = {
        # Called by other services. It rotates by itself, at a time when somebody is there.
        api = {
          description       = "key of the orders service for the payment API"
          scopes            = ["payments:read", "payments:refund"]
          prefix            = "acme_live"
          rotation_schedule = "CRON_TZ=Europe/Berlin 30 9 * * 2"
          grace_period      = 24 * 3600
        }
      }
    }

    mobile = {
      owner = "team-mobile@example.com"
      roles = {
        # Built into an app: the old key must live as long as the old app does.
        app = {
          description      = "key inside the app"
          scopes           = ["catalog:read"]
          rotation_period  = 90 * 24 * 3600
          grace_period     = 30 * 24 * 3600
          max_grace_period = 60 * 24 * 3600
          rate_limit       = 200
          on_leak          = "rotate"
        }
      }
    }

    data = {
      owner = "team-data@example.com"
      roles = {
        # Each job has a key of its own, which ends with its lease.
        jobs = {
          type          = "dynamic"
          description   = "one key per run of a job"
          scopes        = ["exports:write"]
          ttl           = 3600
          allowed_cidrs = ["10.20.0.0/16"]
        }
        # A partner that changes its key by hand.
        partner = {
          description     = "the partner that fetches the exports"
          scopes          = ["exports:read"]
          rotation_period = 0
          metadata        = { contract = "2030-17" }
        }
      }
    }
  }
}
