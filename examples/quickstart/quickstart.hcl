# A first job: run it with `meshrun up examples/quickstart`, then edit this
# file while it runs and save. Only what you changed is touched.

variable "greeting" {
  type        = string
  default     = "hello"
  description = "What the workers say when they start"
}

locals {
  tick = "1"
}

job "quickstart" {
  labels = { purpose = "a first look" }

  # Runs once and is done; the workers wait for it.
  process "setup" {
    command = ["sh", "-c", "echo preparing; sleep 1; echo ready"]
    restart { policy = "never" }
  }

  # Three instances of one program, each with a number of its own.
  process "worker" {
    command = ["sh", "-c", "echo \"${var.greeting} from shard ${shard.index}\"; while :; do sleep 60; done"]
    shards  = 3
    depends_on "setup" { condition = "completed" }
  }

  # Talks all the time: watch it with `meshrun logs -f quickstart/clock`.
  process "clock" {
    command = ["sh", "-c", "while :; do date; sleep ${local.tick}; done"]
    logs {
      max_size = "1MiB"
      keep     = 2
    }
  }

  # Fails every twenty seconds and is started again. It is not critical: when
  # its attempts are used up there is a warning, and it is tried at leisure.
  process "flaky" {
    command = ["sh", "-c", "echo working; sleep 20; echo 'something broke' >&2; exit 1"]
    restart {
      policy    = "on-failure"
      delay     = "500ms"
      max_delay = "10s"
      attempts  = 3
      window    = "5m"
      exhausted = "retry"
    }
  }
}
