job "web" {
  process "server" {
    command = ["./server"]
    port "http" { static = 70000 } # ERROR: Out of range
  }
}
