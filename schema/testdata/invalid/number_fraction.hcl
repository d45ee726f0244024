job "web" {
  process "server" {
    command = ["./server"]
    shards = 1.5 # ERROR: Not a whole number
  }
}
