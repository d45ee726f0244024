job "web" {
  process "server" {
    command = ["./server"]
    resources {
      cpu    = 0.5
      memory = "256MiB"
      pids   = 100
    }
  }
  process "small" {
    command = ["./small"]
    resources { memory = "4MiB" }
  }
}
