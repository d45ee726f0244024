job "web" {
  process "server" {
    command = ["./server"]
    dir = node.labels # ERROR: Wrong type
  }
}
