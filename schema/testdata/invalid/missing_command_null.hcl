job "web" {
  process "server" {
    command = null # ERROR: Missing attribute
  }
}
