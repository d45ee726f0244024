job "web" {
  process "server" { # ERROR: Unclosed configuration block
    command = ["./server"]
