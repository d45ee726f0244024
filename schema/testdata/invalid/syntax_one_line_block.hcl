job "web" {
  process "server" {
    command = ["./server"]
    stop { signal = "SIGTERM" timeout = "10s" } # ERROR: Invalid single-argument block definition
  }
}
