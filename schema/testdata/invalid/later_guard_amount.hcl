job "web" {
  process "server" {
    command = ["./server"]
    guard "cpu" { # ERROR: Not available yet
      above  = "a lot" # ERROR: Invalid amount
      action = "explode" # ERROR: Invalid value
    }
  }
}
