job "web" {
  process "server" {
    command = ["./server"]
    restart { exhausted = "reschedule" } # ERROR: Not available yet
  }
  process "db" {
    command = ["db"]
  }
}
