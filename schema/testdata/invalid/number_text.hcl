job "web" {
  process "server" {
    command = ["./server"]
    shards = "many" # ERROR: Wrong type
  }
}
