job "web" {
  process "server" {
    command = ["./server"]
    user = node.name # ERROR: Not known yet
  }
}
