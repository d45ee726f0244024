job "web" {
  process "server" {
    command = ["./server"]
    env = { A = { b = "c" } } # ERROR: Wrong type
  }
}
