job "web" {
  process "server" {
    command = ["./server"]
    guard "cpu" { above = "512MiB" } # ERROR: "512MiB" is not a bound of a guard "cpu"
    guard "memory" {} # ERROR: The guard "memory" has no bound
    guard "absent" {
      above    = "95%"  # ERROR: The guard "absent" takes no bound
      interval = "10ms" # ERROR: A look every 10ms would keep the node busy
    }
  }
  process "alerts" {
    command = ["./alerts"]
    guard "absent" {
      above  = 3         # ERROR: The guard "absent" takes no bound
      action = "restart" # ERROR: A guard "absent" cannot restart: nothing runs then that could be
    }
  }
  process "once" {
    command = ["./once"]
    restart { policy = "never" }
    guard "memory" {
      above  = "1GiB"
      action = "restart" # ERROR: action = "restart" contradicts the restart policy "never"
    }
  }
}
