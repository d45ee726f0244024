job "web" {
  process "server" {
    command = ["./server"]
    dynamic "port" {
      for_each = node.labels # ERROR: Not known yet
      labels = [port.key]
      content {}
    }
  }
}
