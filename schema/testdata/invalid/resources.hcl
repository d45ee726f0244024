job "web" {
  process "idle" {
    command = ["./server"]
    resources { # ERROR: The block limits nothing
    }
  }
  process "server" {
    command = ["./server"]
    resources {
      cpu    = 0      # ERROR: Out of range
      memory = "1MiB" # ERROR: Out of range
      pids   = 0      # ERROR: Out of range
    }
  }
}
