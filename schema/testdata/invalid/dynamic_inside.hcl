job "web" {
  process "server" {
    command = ["./server"]
    dynamic "port" {
      for_each = [1]
      labels   = ["a"]
      content {
        static = prot.value # ERROR: Unknown reference
      }
    }
  }
}
