job "web" {
  process "server" {
    command = ["./server"]
    shards  = 4
    update {
      canary            = 4     # ERROR: All 4 shards would be canaries
      min_healthy       = "1m"
      healthy_deadline  = "30s" # ERROR: No shard can be healthy for 1m within 30s
      progress_deadline = "20s" # ERROR: The rollout would fail after 20s, before a shard has had its 30s
    }
  }
  process "alone" {
    command = ["./alone"]
    update { canary = 1 } # ERROR: The only shard would be a canary
  }
  process "untried" {
    command = ["./untried"]
    shards  = 2
    update { auto_promote = true } # ERROR: There are no canaries to promote
  }
  process "never" {
    command = ["./never"]
    update { max_parallel = 0 } # ERROR: Out of range
  }
  process "late" {
    command = ["./late"]
    update { min_healthy = "5m" } # ERROR: No shard can be healthy for 5m within 5m
  }
}
