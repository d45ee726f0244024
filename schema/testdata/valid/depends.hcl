# Within a job, and across jobs: of the files, and of none of them.
job "store" {
  process "redis" {
    command = ["redis-server"]
  }
  process "seed" {
    command = ["./seed"]
    restart { policy = "on-failure" }
    depends_on "redis" {}
  }
}

job "shop" {
  process "api" {
    command = ["./api"]
    depends_on "store/redis" { on_failure = "stop" }
    depends_on "store/seed" {
      condition  = "completed"
      on_failure = "restart"
    }
  }
  process "web" {
    command = ["./web"]
    depends_on "api" {
      on_failure = "wait"
    }
    depends_on "elsewhere/sessions" {
      condition = "healthy"
    }
  }
}
