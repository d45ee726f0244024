# A job for several nodes: `make cluster` starts three of them on this machine
# and applies it. Then kill a node, and watch where its shards go.

job "tickets" {
  # Six shards, of each never two, whatever fails. The token grows with each
  # hand-over: a database that refuses smaller ones is safe even from a machine
  # that was frozen and wakes up.
  process "seller" {
    command   = ["sh", "-c", "while :; do echo \"shard ${shard.index} of ${shard.count} on ${node.name}, token $MESHRUN_TOKEN\"; sleep 2; done"]
    shards    = 6
    exclusive = true
    stop { timeout = "1s" }
  }

  # As many as there are shards, spread over the nodes; two of one do no harm.
  # One that fails again and again on a node is tried on another.
  process "counter" {
    command = ["sh", "-c", "while :; do date; sleep 5; done"]
    shards  = 3
    restart { exhausted = "reschedule" }
  }
}
