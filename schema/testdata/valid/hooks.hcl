job "shop" {
  process "web" {
    command = ["./server"]
    shards  = 2
    hook "after_stop" {
      command = ["./leave", "--shard", "${shard.index}"]
      timeout = "1m"
    }
    hook "before_start" {
      command = ["./warm-up"]
    }
  }
}
