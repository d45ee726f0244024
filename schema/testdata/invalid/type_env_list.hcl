job "web" {
  process "server" {
    command = ["./server"]
    env = ["A=b"] # ERROR: Wrong type
  }
}
