variable "workers" { default = 1 }
job "web" {
  process "server" {
    command = ["./server", var.wrokers] # ERROR: Unknown variable
  }
}
