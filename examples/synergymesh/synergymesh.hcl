# The platform that meshrun grew out of, as one job: a launcher, orchestrators
# that share the work in shards, and engines of which there are never two of
# one shard. `make build` makes the stand-in programs; then
#
#   bin/meshrun up examples/synergymesh

variable "orchestrators" {
  type        = number
  default     = 3
  description = "How many orchestrators share the work"

  validation {
    condition     = var.orchestrators > 0
    error_message = "At least one orchestrator is needed."
  }
}

variable "engines" {
  type        = number
  default     = 4
  description = "How many exclusive engine shards there are"
}

variable "data" {
  type    = string
  default = "/tmp/synergymesh"
}

variable "api_token" {
  type        = string
  default     = "not-a-real-secret"
  sensitive   = true
  description = "Shown nowhere: not in plans, logs or events"
}

locals {
  program = "bin/synergy"
  common = {
    LOG_LEVEL = "info"
    DATA      = var.data
  }
  # A table of engine kinds; a dynamic block below makes a process of each.
  engines = {
    render = var.engines
    mail   = 1
  }
}

job "synergymesh" {
  labels = { team = "platform" }

  process "migrate" {
    command = [local.program, "migrate", "--data", var.data]
    dir     = "../.."
    restart {
      policy = "never"
    }
  }

  process "launcher" {
    command  = [local.program, "launcher", "--port", port.http, "--config", "examples/synergymesh/launcher.conf"]
    dir      = "../.."
    env      = merge(local.common, { TOKEN = var.api_token })
    critical = true

    restart {
      policy    = "always"
      delay     = "200ms"
      max_delay = "10s"
      attempts  = 3
      window    = "5m"
      exhausted = "fail"
    }

    stop {
      signal  = "SIGTERM"
      timeout = "5s"
    }

    # When this file changes, the launcher reads it again; it is not restarted.
    reload {
      signal = "SIGHUP"
      files  = ["examples/synergymesh/launcher.conf"]
    }

    ready {
      notify  = true
      timeout = "15s"
    }

    watchdog { timeout = "30s" }
    port "http" { static = 18080 }

    logs {
      max_size = "5MiB"
      keep     = 3
    }

    depends_on "migrate" { condition = "completed" }
  }

  process "orchestrator" {
    command = [
      local.program, "orchestrator",
      "--shard", shard.index, "--of", shard.count,
      "--launcher", "http://127.0.0.1:18080",
    ]
    dir      = "../.."
    env      = local.common
    shards   = var.orchestrators
    critical = true
    depends_on "launcher" { condition = "started" }
  }

  dynamic "process" {
    for_each = local.engines
    labels   = ["engine-${process.key}"]
    content {
      command = [
        local.program, "engine", "--data", "${var.data}",
        "--launcher", "http://127.0.0.1:18080", "--shard", shard.index,
      ]
      dir       = "../.."
      env       = merge(local.common, { KIND = upper(process.key), NODE = node.name })
      shards    = process.value
      exclusive = true
      critical  = true
      depends_on "launcher" { condition = "started" }
    }
  }
}
