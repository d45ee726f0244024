job "web" {
  process "server" {
    command = ["./server"]
    health "http" {
      url        = "http://127.0.0.1/"
      interval   = 5         # ERROR: Missing unit
      failures   = 0         # ERROR: Out of range
      on_failure = "explode" # ERROR: Invalid value
    }
    guard "cpu" {
      above  = "a lot"   # ERROR: Invalid amount
      action = "explode" # ERROR: Invalid value
    }
    guard "memory" {
      above = 512 # ERROR: Missing unit
    }
    guard "zombie" {
      above = "95%" # ERROR: Wrong type
    }
    guard "disk" {} # ERROR: Invalid label
  }
}
