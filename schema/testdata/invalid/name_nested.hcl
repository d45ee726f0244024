job "web" {
  process "server" {
    command = ["./server"]
    restart {
      dealy = "1s" # ERROR: Unsupported argument
    }
  }
}
