job "web" {
  process "server" {
    command = ["./server"]
    dynamic "prot" { # ERROR: Unsupported block type
      for_each = []
      content {}
    }
  }
}
