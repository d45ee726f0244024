job "web" {
  process "server" {
    command = ["./server"]
    shards = shard.count # ERROR: Not known yet
  }
}
