job "web" {
  labels = "team" # ERROR: Wrong type
  process "server" {
    command = ["./server"]
  }
}
