job "web" {
  process "server" {
    command = ["./server"]
    user = "a"
    user = "b" # ERROR: Attribute redefined
  }
}
