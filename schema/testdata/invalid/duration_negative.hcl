job "web" {
  process "server" {
    command = ["./server"]
    stop { timeout = "-10s" } # ERROR: Out of range
  }
}
