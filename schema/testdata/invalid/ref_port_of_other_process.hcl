job "web" {
  process "server" {
    command = ["./server"]
    port "http" {}
  }
  process "other" {
    command = ["x", port.http] # ERROR: Unknown port
  }
}
