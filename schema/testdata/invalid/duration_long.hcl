job "web" {
  process "server" {
    command = ["./server"]
    stop { timeout = "200000h" } # ERROR: Out of range
  }
}
