job "web" {
  process "server" {
    command = concat(["./server"], [for l in node.labels : l]) # ERROR: Not known yet
    env     = merge({ A = "b" }, node.labels) # ERROR: Not known yet
  }
  process "condition" {
    command = shard.index > 0 ? ["a"] : ["b", shard.index] # ERROR: Not known yet
    env     = { for i in [1, 2] : node.name => i } # ERROR: Not known yet
  }
}
