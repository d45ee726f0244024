job "web" {
  process "server" {
    command = ["./server"]
    stop "now" { # ERROR: Extraneous label for stop
    }
  }
}
