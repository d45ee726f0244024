variable "workers" {
  default = 0 # ERROR: Invalid value for variable
  validation {
    condition     = var.workers > 0
    error_message = "At least one worker is needed."
  }
}
