variable "a" { # ERROR: No value for variable
  type = string
}
