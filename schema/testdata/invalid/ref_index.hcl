locals {
  list = ["a", "b"]
}

job "web" {
  process "server" {
    command = ["./server", local.list[7]] # ERROR: Invalid index
    dir     = local.list.name # ERROR: Unsupported attribute
  }
}
