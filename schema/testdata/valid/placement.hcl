variable "disk" {
  type    = string
  default = "ssd"
}

job "web" {
  process "server" {
    command = ["./server"]
    shards  = 4
    placement {
      constraint {
        label = "disk"
        is    = var.disk
      }
      constraint {
        label = "arch"
        is    = "amd64"
      }
      spread { label = "zone" }
    }
  }
  process "anywhere" {
    command = ["./other"]
    placement {}
  }
}
