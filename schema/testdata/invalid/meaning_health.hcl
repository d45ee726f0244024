job "web" {
  process "server" {
    command = ["./server"]
    health "nothing" {} # ERROR: The check has no target
    health "two" { # ERROR: The check is of two kinds
      url = "http://127.0.0.1/"
      tcp = "127.0.0.1:80"
    }
    health "url" {
      url = "127.0.0.1:80" # ERROR: This is not an address that can be asked over HTTP
    }
    health "tcp" {
      tcp = "127.0.0.1" # ERROR: "127.0.0.1" is not a host with a port
    }
    health "grpc" {
      grpc = "localhost:http" # ERROR: "localhost:http" is not a host with a port
    }
    health "foreign" {
      tcp     = "127.0.0.1:80"
      status  = ["200"] # ERROR: status means nothing in a check of this kind
      service = "x"     # ERROR: service means nothing in a check of this kind
      tls     = true    # ERROR: tls means nothing in a check of this kind
    }
    health "answer" {
      url     = "http://127.0.0.1/"
      status  = ["200", "2xx"]        # ERROR: "2xx" is neither a code of HTTP nor a range of such
      body    = "("                   # ERROR: This is not a regular expression
      headers = { "a b" = "x" }       # ERROR: "a b" is not a name for a header
      ca_file = "ca.pem"              # ERROR: The path of the file is not absolute
    }
    health "ready" {
      notify = true # ERROR: The process does not report when it is ready
    }
    health "log" {
      log      = "[a" # ERROR: This is not a regular expression
      interval = "10ms" # ERROR: A check every 10ms would keep the node busy
      timeout  = "5m"   # ERROR: A timeout of 5m holds up other checks
    }
    health "bad name" { # ERROR: "bad name" is not a name for a check
      tcp = "127.0.0.1:80"
    }
  }
  process "once" {
    command = ["./once"]
    restart { policy = "never" }
    health "exec" {
      command    = ["true"]
      on_failure = "restart" # ERROR: on_failure = "restart" contradicts the restart policy "never"
    }
  }
}
