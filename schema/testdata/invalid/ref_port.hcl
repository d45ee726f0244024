job "web" {
  process "server" {
    command = ["./server", port.htpp] # ERROR: Unknown port
    port "http" {}
  }
}
