job "web" {
  process "server" {
    comand = ["./server"] # ERROR: Unsupported argument
    command = ["./server"]
  }
}
