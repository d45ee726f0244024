job "web" {
  process "server" {
    command = ["./server", "a\u0000b"] # ERROR: Invalid text
  }
}
