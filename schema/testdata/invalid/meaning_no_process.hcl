job "web" { # ERROR: A job needs at least one process
}
