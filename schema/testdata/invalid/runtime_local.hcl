locals { a = "x-${shard.index}" } # ERROR: Not known yet
