job "reports" {
  process "nightly" {
    command = ["./report"]
    schedule { cron = "0 25 * * *" } # ERROR: "0 25 * * *" is not a schedule
  }
  process "nowhere" {
    command = ["./report"]
    schedule {
      cron      = "0 3 * * *"
      time_zone = "Europe/Berlim" # ERROR: "Europe/Berlim" is not a time zone for a schedule
    }
  }
  process "never" {
    command = ["./report"]
    schedule { cron = "0 0 30 2 *" } # ERROR: "0 0 30 2 *" is not a schedule
  }
  process "always" {
    command = ["./report"]
    schedule { cron = "@daily" }
    restart { attempts = 5 } # ERROR: A run that is restarted whenever it ends never ends
  }
  process "many" {
    command = ["./report"]
    shards  = 3
    schedule {
      cron    = "@hourly"
      overlap = true # ERROR: Runs of 3 shards cannot overlap
    }
  }
  process "port" {
    command = ["./report"]
    port "http" { static = 80 } # ERROR: Runs that overlap cannot share port 80
    schedule {
      cron    = "@hourly"
      overlap = true
    }
  }
  process "steps" {
    command = ["./report"]
    schedule { cron = "@hourly" }
    update {} # ERROR: There is nothing to roll out in steps
  }
  process "waits" {
    command = ["./waits"]
    depends_on "steps" {} # ERROR: Process "steps" is down between its runs
  }
  process "late" {
    command = ["./late"]
    schedule {
      cron     = "@hourly"
      catch_up = "all" # ERROR: Invalid value
    }
  }
}
