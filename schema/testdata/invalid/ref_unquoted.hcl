job "web" {
  process "server" {
    command = ["./server"]
    user = nobody # ERROR: Unknown reference
  }
}
