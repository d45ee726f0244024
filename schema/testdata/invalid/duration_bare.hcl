job "web" {
  process "server" {
    command = ["./server"]
    restart {
      delay = 10 # ERROR: Missing unit
    }
  }
}
