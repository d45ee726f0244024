job "web" {
  process "server" {
    command = ["./server"]
    stop { timeout = "30" } # ERROR: Missing unit
  }
}
