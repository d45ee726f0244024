job "meshrun" { # ERROR: The job name "meshrun" is reserved
  process "server" {
    command = ["a"]
  }
}
