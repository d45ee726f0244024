job "web" {
  process "server" {
    command = ["./server", "--port", port.http]
    user    = "www-data"
    ready { notify = true }
    port "http" {}
    port "rpc" {}

    health "page" {
      url        = "https://127.0.0.1:${port.http}/healthz"
      method     = "POST"
      headers    = { Host = "shop.example", X-Shard = shard.index }
      status     = ["204", "300-399"]
      body       = "^ok$"
      ca_file    = "/etc/ssl/shop.pem"
      interval   = "5s"
      timeout    = "500ms"
      failures   = 2
      successes  = 3
      on_failure = "withdraw"
    }
    health "rpc" {
      grpc        = "127.0.0.1:${port.rpc}"
      service     = "shop.v1.Cart"
      tls         = true
      skip_verify = true
    }
    health "disk" {
      command      = ["./check-disk", "--shard", shard.index]
      start_period = "1m"
      on_failure   = "restart"
    }
    health "port" { tcp = "localhost:8080" }
    health "started" { log = "^listening on" }
    health "ready" { notify = true }

    guard "cpu" {
      above    = "95%"
      for      = "30s"
      interval = "10s"
      action   = "restart"
    }
    guard "memory" { above = "512MiB" }
    guard "zombie" { above = 10 }
    guard "absent" { for = "5m" }
  }
  process "worker" {
    command = ["./worker"]
    depends_on "server" { condition = "healthy" }
  }
}
