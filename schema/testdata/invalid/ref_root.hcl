job "web" {
  process "server" {
    command = ["./server"]
    dir = vars.x # ERROR: Unknown reference
  }
}
