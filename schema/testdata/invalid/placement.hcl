job "web" {
  process "server" {
    command = ["./server"]
    placement {
      constraint {
        label = "disk"
        is    = "ssd"
      }
      constraint { # ERROR: No node has label "disk" with two values
        label = "disk"
        is    = "hdd"
      }
      spread { label = "zone" }
      spread { label = "zone" } # ERROR: The shards are spread over label "zone" twice
    }
  }
  process "other" {
    command = ["./other"]
    placement {
      spread { label = "" } # ERROR: The label of a spread is empty
    }
  }
}
