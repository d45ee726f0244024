job "web" {
  process "server" {
    command = ["a"]
  }
  process "server" { # ERROR: Duplicate block
    command = ["b"]
  }
}
