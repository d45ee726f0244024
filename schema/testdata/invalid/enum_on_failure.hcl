job "web" {
  process "server" {
    command = ["./server"]
    depends_on "db" { on_failure = "reboot" } # ERROR: Invalid value
  }
  process "db" {
    command = ["db"]
  }
}
