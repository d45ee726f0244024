dynamic "locals" { # ERROR: Unsupported dynamic block
  for_each = [1]
  content {
    a = 1
  }
}
