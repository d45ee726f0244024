job "web" {
  process "server" {
    command = ["./server"]
    depends_on "databse" {} # ERROR: There is no process "databse" in job "web"
  }
  process "database" {
    command = ["db"]
  }
}
