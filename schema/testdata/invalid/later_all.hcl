job "web" {
  process "server" {
    command = ["./server"]
    schedule { cron = "0 3 * * *" } # ERROR: Not available yet
    restart { exhausted = "reschedule" } # ERROR: Not available yet
  }
  process "db" {
    command = ["db"]
  }
}
