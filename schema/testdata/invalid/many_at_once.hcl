job "web" {
  process "server" {
    comand = ["./server"] # ERROR: Unsupported argument
    command = ["./server", var.a, shard.idx] # ERROR: Unknown variable # ERROR: Unknown reference
    shards = "x" # ERROR: Wrong type
    stop {
      signal = "NOPE" # ERROR: Unknown signal
      timeout = 10 # ERROR: Missing unit
    }
  }
}
