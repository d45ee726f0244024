job "web" {
  process "server" {
    command = ["./server"]
    env = {
      A            = "b"
      MESHRUN_NODE = "x" # ERROR: MESHRUN_NODE is set by meshrun
    }
  }
}
