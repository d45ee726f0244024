variable "secret" {
  type      = string
  default   = "x"
  sensitive = true
}

job "web" {
  process "server" {
    command = ["./server"]
    port "http" {}
    service {
      name = "web"
      port = "htpt" # ERROR: The process has no port "htpt"
      tags = ["v2", "v2"] # ERROR: The tag "v2" is there twice
    }
    service { name = "Web" } # ERROR: "Web" is not a name for a service
  }
  process "nameless" {
    command = ["./server"]
    service {} # ERROR: Missing attribute
  }
  process "sensitive" {
    command = ["./server"]
    service {
      name = "other"
      tags = ["v2", var.secret] # ERROR: Sensitive value
    }
    service {
      name = var.secret # ERROR: Sensitive value
    }
  }
}
