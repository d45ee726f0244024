job "a" {
  process "x" {
    command = ["x"]
    depends_on "a/y" {}     # ERROR: A process of the same job is named without it
    depends_on "b/y/0" {}   # ERROR: "b/y/0" is not the name of a process
    depends_on "b/" {}      # ERROR: "b/" is not the name of a process
    depends_on "B/y" {}     # ERROR: "B/y" is not the name of a process
    depends_on "a/x" {}     # ERROR: A process of the same job is named without it
  }
  process "y" {
    command = ["y"]
  }
}
