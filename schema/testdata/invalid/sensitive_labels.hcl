variable "t" {
  default   = "x"
  sensitive = true
}
job "web" {
  labels = { t = var.t } # ERROR: Sensitive label
  process "server" {
    command = ["a"]
  }
}
