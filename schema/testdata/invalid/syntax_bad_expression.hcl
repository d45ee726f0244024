job "web" {
  process "server" {
    command = ["./server", ] 
    shards = * 2 # ERROR: Invalid expression
  }
}
