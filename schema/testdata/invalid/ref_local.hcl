job "web" {
  process "server" {
    command = ["./server"]
    dir = local.nothing # ERROR: Unknown local
  }
}
