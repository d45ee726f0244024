job "web" {
  process "server" {
    command = ["./server", ["a"]] # ERROR: Wrong type
  }
}
