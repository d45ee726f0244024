job "web" {
  process "server" {
    command = ["./server"]
    env = {
      A = "1"
      A = "2" # ERROR: Duplicate name
    }
  }
}
