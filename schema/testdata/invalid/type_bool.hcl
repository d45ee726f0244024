job "web" {
  process "server" {
    command = ["./server"]
    critical = "maybe" # ERROR: Wrong type
  }
}
