job "reports" {
  process "nightly" {
    command = ["./report", "--shard", shard.index]
    shards  = 2
    schedule {
      cron      = "30 2 * * mon-fri"
      time_zone = "Europe/Berlin"
      catch_up  = "one"
    }
  }
  process "poll" {
    command = ["./poll"]
    restart { policy = "on-failure" }
    schedule {
      cron    = "*/5 * * * *"
      overlap = true
    }
  }
  process "publish" {
    command = ["./publish"]
    depends_on "nightly" { condition = "completed" }
  }
}
