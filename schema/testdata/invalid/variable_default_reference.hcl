variable "a" { default = local.b } # ERROR: References not allowed
locals { b = 1 }
