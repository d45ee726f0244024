job "web" {
  process "server" {
    command = ["./server"]
    port "http" {}
    port "http" {} # ERROR: Duplicate block
  }
}
