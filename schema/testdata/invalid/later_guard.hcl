job "web" {
  process "server" {
    command = ["./server"]
    guard "memory" { # ERROR: Not available yet
      above  = 512 # ERROR: Missing unit
      action = "restart"
    }
  }
}
