job "a" {
  process "x" {
    command = ["x"]
    depends_on "b/y" {} # ERROR: These processes wait for each other: a/x → b/y → b/z → a/x
  }
}

job "b" {
  process "y" {
    command = ["y"]
    depends_on "z" {}
  }
  process "z" {
    command = ["z"]
    depends_on "a/x" {}
  }
}
