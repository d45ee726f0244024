job "web" {
  process "server" {
    command = ["./server"]
    restart { policy = "alwas" } # ERROR: Invalid value
  }
}
