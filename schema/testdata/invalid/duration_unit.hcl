job "web" {
  process "server" {
    command = ["./server"]
    stop { timeout = "10 seconds" } # ERROR: Invalid duration
  }
}
