job "web" {
  process "server" {
    command = ["./server"]
    restart {
      delay     = "2m" # ERROR: The first delay (2m) is longer than the longest (1m)
      max_delay = "1m"
    }
  }
}
