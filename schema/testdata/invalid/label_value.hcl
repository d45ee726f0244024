job "web" {
  process "server" {
    command = ["./server"]
    hook "before_stop" { # ERROR: Invalid label
      command = ["x"]
    }
  }
}
