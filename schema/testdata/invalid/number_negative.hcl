job "web" {
  process "server" {
    command = ["./server"]
    shards = -1 # ERROR: Out of range
  }
}
