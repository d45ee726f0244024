job "web" {
  process "server" { # ERROR: Missing attribute
    user = "nobody"
  }
}
