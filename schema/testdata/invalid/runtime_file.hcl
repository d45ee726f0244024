job "web" {
  process "server" {
    command = ["./server", file("/etc/${node.name}")] # ERROR: Not known yet
  }
}
