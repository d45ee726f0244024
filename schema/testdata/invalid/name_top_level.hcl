jobs "web" { # ERROR: Unsupported block type
}
