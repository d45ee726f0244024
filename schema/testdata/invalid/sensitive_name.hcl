variable "t" {
  default   = "x"
  sensitive = true
}
job "web" {
  process "server" {
    command = ["./server"]
    env = { (var.t) = "a" } # ERROR: Sensitive name
  }
}
