job "web" {
  process "server" {
    command = ["./server"]
    stop { timeout = "1s" }
    stop { timeout = "2s" } # ERROR: Duplicate block
  }
}
