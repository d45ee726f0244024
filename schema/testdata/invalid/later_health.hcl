job "web" {
  process "server" {
    command = ["./server"]
    health "http" { # ERROR: Not available yet
      url      = "http://127.0.0.1/"
      interval = 5 # ERROR: Missing unit
    }
  }
}
