job "web" {
  process "server" {
    command = ["./server"]
    logs { max_size = 10 } # ERROR: Missing unit
  }
}
