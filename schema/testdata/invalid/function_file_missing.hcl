job "web" {
  process "server" {
    command = [file("no-such-file")] # ERROR: Invalid function argument
  }
}
