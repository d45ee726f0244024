variable "workers" {
  default = 0
  validation { # ERROR: Missing attribute
    condition = true
  }
}
