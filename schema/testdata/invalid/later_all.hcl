job "web" {
  process "server" {
    command = ["./server"]
    resources { cpu = 0.5 } # ERROR: Not available yet
    hook "before_start" { command = ["x"] } # ERROR: Not available yet
    restart { exhausted = "reschedule" } # ERROR: Not available yet
    depends_on "db" { condition = "healthy" } # ERROR: Not available yet
  }
  process "db" {
    command = ["db"]
  }
}
