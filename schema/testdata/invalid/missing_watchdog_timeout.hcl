job "web" {
  process "server" {
    command = ["./server"]
    watchdog {} # ERROR: Missing attribute
  }
}
