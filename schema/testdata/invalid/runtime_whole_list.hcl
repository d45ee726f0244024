job "web" {
  process "server" {
    command = concat(["./server"], [shard.index]) # ERROR: Not known yet
  }
}
