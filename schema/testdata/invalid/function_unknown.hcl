job "web" {
  process "server" {
    command = [uper("a")] # ERROR: Call to unknown function
  }
}
