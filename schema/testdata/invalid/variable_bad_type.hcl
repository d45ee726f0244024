variable "a" {
  type    = strin # ERROR: Invalid type specification
  default = "x"
}
