job "web" {
  process "server" {
    command = ["./server"]
    logs { max_size = "10 megs" } # ERROR: Invalid size
  }
}
