locals {
  services = {
    api   = { port = 8080, after = [] }
    front = { port = 8081, after = ["api"] }
  }
}

job "dynamic" {
  dynamic "process" {
    for_each = local.services
    iterator = svc
    labels   = [svc.key]
    content {
      command = ["./${svc.key}", "--listen=${node.name}:${port.main}", svc.value.port, "${svc.key}-${shard.index}"]
      env     = { NAME = upper("${svc.key}-${shard.count}") }
      port "main" { static = svc.value.port }
      dynamic "depends_on" {
        for_each = svc.value.after
        labels   = [depends_on.value]
        content {}
      }
    }
  }

  process "plain" {
    command = ["./plain", port.p0, port.p1]
    dynamic "port" {
      for_each = range(2)
      labels   = ["p${port.value}"]
      content {
        static = 9000 + port.value
      }
    }
  }
}
