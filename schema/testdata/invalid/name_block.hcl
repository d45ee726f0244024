job "web" {
  process "server" {
    command = ["./server"]
    restrat { # ERROR: Unsupported block type
    }
  }
}
