job "web" {
  process "server" {
    command = split(",", "./server,${shard.index}") # ERROR: Not known yet
  }
}
