job "web" {
  process "server" {
    command = ["./server"]
    env { # ERROR: Unsupported block type
      A = "b"
    }
  }
}
