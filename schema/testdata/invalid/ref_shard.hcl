job "web" {
  process "server" {
    command = ["./server", shard.idx] # ERROR: Unknown reference
  }
}
