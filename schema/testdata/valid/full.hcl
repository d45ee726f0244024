variable "workers" {
  type        = number
  default     = 4
  description = "How many ingest shards"
  validation {
    condition     = var.workers > 0
    error_message = "At least one worker is needed."
  }
}

variable "token" {
  type      = string
  default   = "hunter2"
  sensitive = true
}

locals {
  root = "/var/lib"
  data = "${local.root}/synergy"
}

job "synergy" {
  labels = { team = "platform" }

  process "launcher" {
    command  = ["python3", "launcher.py", "--port", port.http, "--token=${var.token}"]
    dir      = "/opt/synergy"
    user     = "synergy:adm"
    critical = true
    env = {
      LOG_LEVEL = "info"
      DATA      = local.data
      TOKEN     = var.token
      ADDRESS   = "${node.name}:${port.http}"
      WORKERS   = var.workers
      UNSET     = null
    }

    restart {
      policy    = "always"
      delay     = "0s"
      max_delay = "1m"
      attempts  = 5
      window    = "10m"
      exhausted = "retry"
      stable    = "30s"
    }
    stop {
      signal  = "int"
      timeout = "1m30s"
    }
    reload {
      signal = "SIGHUP"
      files  = ["${local.data}/conf", "shard-${shard.index}.conf"]
    }
    ready {
      notify  = true
      timeout = "45s"
    }
    watchdog { timeout = "30s" }
    port "http" { static = 8080 }
    port "admin" {}
    logs {
      max_size = "1.5MiB"
      keep     = 0
    }
  }

  process "ingest" {
    command   = ["ingest", "--shard", shard.index, "--of", shard.count]
    shards    = var.workers
    exclusive = true
    depends_on "launcher" {}
  }

  process "migrate" {
    command = concat(["migrate"], [for n in range(2) : "--step=${n}"])
    restart { policy = "on-failure" }
    depends_on "launcher" { condition = "started" }
  }
}
