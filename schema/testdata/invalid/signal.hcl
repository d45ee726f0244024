job "web" {
  process "server" {
    command = ["./server"]
    stop { signal = "SIGTREM" } # ERROR: Unknown signal
  }
}
