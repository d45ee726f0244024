job "web" {
  process "server" {
    command = ["./server", jsonencode(port)] # ERROR: Incomplete reference
    port "http" {}
  }
}
