job "web" {
  process "server" {
    command = ["./server"]
    env = { (node.name) = "a" } # ERROR: Not known yet
  }
}
