job "web" {
  process "server" {
    command = [upper()] # ERROR: Not enough function arguments
  }
}
