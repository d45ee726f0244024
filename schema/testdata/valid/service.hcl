job "web" {
  process "server" {
    command = ["./server", "--port", port.http]
    shards  = 2
    port "http" {}
    service {
      name = "web"
      port = "http"
      tags = ["v2", "blue"]
    }
    service { name = "web-worker" }
  }
}
