locals {
  names = ["a", "b"]
  zones = { a = "north", b = "south" }
}

job "runtime" {
  process "p" {
    shards  = 2
    command = [
      "./p",
      shard.index,
      "${shard.index}",
      "literal $${shard.index} %%{ if } $ % $$",
      "cost: $${port.a}$${x}",
      "$${local.names[0]}${local.names[0]}",
      upper("${local.zones["a"]}-${shard.index}"),
      shard.index > 0 ? "follower" : "leader",
      "%{if shard.count > 1}many%{else}one%{endif}",
      "%{for n in local.names}${n}=${port.http} %{endfor}",
      join(",", [for n in local.names : "${n}:${port.http}"]),
      join(",", [for shard in local.names : "${shard}-${node.name}"]),
      join(",", [for k, v in local.zones : "${k}=${v}" if k != node.name]),
      jsonencode({ for k, v in local.zones : k => "${v}${port.http}" }),
      jsonencode({ name = node.name, (local.names[1]) = [port.http, 1.5, true, null] }),
      jsonencode([for n in [{ a = port.http }] : n][*].a),
      node.labels["zone"],
      node.labels[local.names[0]],
      lookup(node.labels, "rack", "none"),
      port.http + 1,
      -port.http,
      !(shard.index == 0),
      "${"a$"}${port.http}",
      "100%${port.http}",
      "x$$$${y}${"%$"}${port.http}",
      (port.http),
      "tab\tquote\"back\\slash ${node.name}",
      format("%s-%03d", "w", shard.index),
    ]
    env = {
      TEXT = <<-EOT
        on ${node.name}
          price: $5 ${local.names[0]} "quoted" \n
      EOT
      ALL = "${local.zones.a}"
    }
    port "http" {}
  }
}
