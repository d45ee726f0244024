job "web" {
  process "server" {
    command = [env("HOME")] # ERROR: Not enough function arguments
  }
}
