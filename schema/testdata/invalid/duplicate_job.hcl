job "web" {
  process "server" {
    command = ["a"]
  }
}
job "web" { # ERROR: Duplicate job
  process "server" {
    command = ["b"]
  }
}
