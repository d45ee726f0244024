job "shop" {
  process "web" {
    command = ["./server"]
    hook "before_start" {
      command = [] # ERROR: The command is empty
    }
    hook "after_stop" {
      command = ["./leave"]
      timeout = "0s" # ERROR: No command ends at once
    }
  }
  process "db" {
    command = ["./db"]
    hook "before_start" { # ERROR: Missing attribute
      timeout = "1s"
    }
  }
}
