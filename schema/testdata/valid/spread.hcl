variable "token" {
  default   = "hunter2"
  sensitive = true
}

locals {
  common = { LOG_LEVEL = "info", NODE = "overridden", GONE = "x" }
  names  = ["a", "b", "c"]
  debug  = true
}

job "spread" {
  process "p" {
    command = concat(
      ["./p"],
      [for i, n in local.names : "--${n}=${i}@${node.name}" if n != "b"],
      local.debug ? ["--debug", shard.index] : [],
      [for n in ["x"] : upper("${n}-${shard.index}")],
      local.names,
      ["--token=${var.token}"],
    )
    env = merge(
      local.common,
      { NODE = node.name, GONE = null, TOKEN = var.token },
      { for shard in local.names : "N_${shard}" => "${shard}:${port.http}" },
      local.debug ? { DEBUG = "${shard.index}" } : {},
    )
    port "http" {}
  }
}
