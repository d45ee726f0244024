job "web" {
  process "server" {
    command = ["./server"]
    shards = 1e30 # ERROR: Out of range
  }
}
