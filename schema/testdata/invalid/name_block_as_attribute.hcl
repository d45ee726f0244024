job "web" {
  process "server" {
    command = ["./server"]
    depends_on = ["db"] # ERROR: Unsupported argument
  }
}
