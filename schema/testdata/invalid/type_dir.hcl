job "web" {
  process "server" {
    command = ["./server"]
    dir = ["/srv"] # ERROR: Wrong type
  }
}
