job "web" {
  process "server" {
    command = ["./server"]
    shards  = 20
    update {
      max_parallel      = 2
      canary            = 1
      min_healthy       = "30s"
      healthy_deadline  = "2m"
      progress_deadline = "2m"
      auto_revert       = true
      auto_promote      = true
      stagger           = "5s"
    }
  }

  process "plain" {
    command = ["./plain"]
    update {}
  }

  process "all_at_once" {
    command = ["./all"]
    shards  = 2
    update {
      max_parallel = 8
      min_healthy  = "0s"
    }
  }

  process "none_yet" {
    command = ["./none"]
    shards  = 0
    update { canary = 1 }
  }
}
