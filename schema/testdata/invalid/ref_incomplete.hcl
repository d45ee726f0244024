job "web" {
  process "server" {
    command = ["./server"]
    dir = var # ERROR: Incomplete reference
  }
}
