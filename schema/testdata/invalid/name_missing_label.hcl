job "web" {
  process { # ERROR: Missing name for process
    command = ["./server"]
  }
}
