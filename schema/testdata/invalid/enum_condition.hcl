job "web" {
  process "server" {
    command = ["./server"]
    depends_on "server2" { condition = "ready" } # ERROR: Invalid value
  }
  process "server2" {
    command = ["x"]
  }
}
