job "web" {
  process "server" {
    command = ["./server", null] # ERROR: Wrong type
  }
}
