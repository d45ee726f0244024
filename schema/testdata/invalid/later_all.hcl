job "web" {
  process "server" {
    command = ["./server"]
    update { canary = 1 } # ERROR: Not available yet
    schedule { cron = "0 3 * * *" } # ERROR: Not available yet
    hook "before_start" { command = ["x"] } # ERROR: Not available yet
    restart { exhausted = "reschedule" } # ERROR: Not available yet
    depends_on "db" { condition = "healthy" } # ERROR: Not available yet
  }
  process "db" {
    command = ["db"]
  }
}
