job "web" {
  process "server" {
    command = "./server --fast" # ERROR: Wrong type
  }
}
