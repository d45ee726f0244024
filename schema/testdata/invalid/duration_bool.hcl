job "web" {
  process "server" {
    command = ["./server"]
    stop { timeout = true } # ERROR: Wrong type
  }
}
