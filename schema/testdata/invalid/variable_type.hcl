variable "a" {
  type    = number
  default = "many" # ERROR: Wrong value for variable
}
