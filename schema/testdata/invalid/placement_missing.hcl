job "web" {
  process "server" {
    command = ["./server"]
    placement {
      constraint { label = "disk" } # ERROR: Missing attribute
      spread {} # ERROR: Missing attribute
    }
  }
}
