job "web" {
  process "server" {
    command = ["./server"]
  }
}
