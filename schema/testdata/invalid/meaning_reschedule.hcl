job "web" {
  process "server" {
    command = ["./server"]
    restart {
      policy    = "never"
      exhausted = "reschedule" # ERROR: policy "never" contradicts exhausted = "reschedule"
    }
  }
  process "nightly" {
    command = ["./report.sh"]
    restart {
      policy    = "on-failure"
      exhausted = "reschedule" # ERROR: A run ends on the node that it began on
    }
    schedule { cron = "0 3 * * *" }
  }
  process "db" {
    command = ["db"]
    restart { exhausted = "reschedule" }
  }
}
