variable "t" {
  default   = ["x"]
  sensitive = true
}
job "web" {
  process "server" {
    command = ["./server"]
    dynamic "port" {
      for_each = var.t # ERROR: Sensitive for_each
      labels = [port.value]
      content {}
    }
  }
}
