job "web" {
  process "server" {
    command = [] # ERROR: The command is empty
  }
}
