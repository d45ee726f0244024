job "shop" {
  process "web" {
    command = ["./server"]
    hook "before_start" {
      command = [] # ERROR: The command is empty
    }
    hook "after_stop" {
      command = ["./leave"]
      timeout = "0s" # ERROR: The timeout must be more than 0
    }
  }
  process "db" {
    command = ["./db"]
    hook "before_start" { # ERROR: Missing attribute
      timeout = "1s"
    }
  }
}
