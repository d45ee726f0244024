package schema

import "github.com/synergymesh/meshrun/spec"

var processBlock = &Block{
	Name: "process", Label: "name", Repeat: true,
	Doc: "One program, and in how many shards it runs.",
	Attrs: []Attr{
		{Name: "command", Kind: KindTemplateList, Required: true, Doc: "A list of program and arguments. No shell is involved unless it is the program."},
		{Name: "dir", Kind: KindTemplate, Doc: "Working directory; a relative path is relative to the directory of the job file. Default: that directory."},
		{Name: "user", Kind: KindString, Doc: "User, or `user:group`, to run as. Default: the one that meshrun runs as."},
		{Name: "env", Kind: KindTemplateMap, Doc: "Environment variables, beside those that meshrun sets (MESHRUN_JOB, _PROCESS, _SHARD, _SHARDS, _NODE, _TOKEN, _PORT_<NAME>). MESHRUN_SHARDS is the number at the start: one that must follow every change uses `shard.count`, and is restarted then."},
		{Name: "critical", Kind: KindBool, Default: "false", Doc: "Events about failures of the process have severity `critical` instead of `warning`; nothing else depends on it."},
		{Name: "shards", Kind: KindInt, Default: "1", Min: 0, Max: 65536, Doc: "How many instances run, numbered from 0 (`shard.index`)."},
		{Name: "exclusive", Kind: KindBool, Default: "false", Doc: "Never two copies of one shard; MESHRUN_TOKEN is its fencing token. In a cluster the watchdog ends it when its node loses its session, so keep the watchdog under systemd. Where meshrun may make cgroups, each copy has one, so that its end is the end of all that it started."},
	},
	Blocks: []*Block{
		restartBlock, stopBlock, reloadBlock, readyBlock, watchdogBlock, logsBlock, portBlock, dependsOnBlock,
		healthBlock, guardBlock, resourcesBlock, serviceBlock, updateBlock, placementBlock, scheduleBlock, hookBlock,
	},
	Example: `job "synergy" {
  process "ingest" {
    command = ["ingest", "--shard", shard.index, "--of", shard.count]
    dir     = "/opt/synergy"
    env     = { LOG_LEVEL = "info" }
    shards  = 4
  }
}`,
}

var restartBlock = &Block{
	Name: "restart",
	Doc:  "What happens when the process ends by itself.",
	Attrs: []Attr{
		{Name: "policy", Kind: KindEnum, Values: []string{"always", "on-failure", "never"}, Default: "always", Doc: "After which exits the process is started again. One that may end (`on-failure` or `never`), and has no `ready`, `watchdog`, `reload`, `port`, `service`, `health` or `schedule` block, is a batch process: `meshrun apply -wait` waits until it has completed."},
		{Name: "delay", Kind: KindDuration, Default: "1s", Doc: "Wait before the first retry; it doubles up to `max_delay`, with jitter. `0s` restarts at once."},
		{Name: "max_delay", Kind: KindDuration, Default: "1m", Doc: "Longest wait before a retry."},
		{Name: "attempts", Kind: KindInt, Default: "3", Min: 0, Max: spec.MaxAttempts, Doc: "How many restarts are allowed within the sliding `window`. For no end, write `exhausted = \"retry\"`."},
		{Name: "window", Kind: KindDuration, Default: "5m", Doc: "Time within which restarts are counted."},
		{Name: "exhausted", Kind: KindEnum, Values: []string{"fail", "retry", "reschedule"}, Default: "fail",
			Doc: "What happens when the attempts are used up: `fail` stays down and alerts, `retry` alerts and goes on trying every `max_delay`, `reschedule` tries another node, and is `fail` where no other one can take the shard. A node on which a shard has used up its attempts does not get it again until the process is defined otherwise, `meshrun restart` is used on it, or the node leaves and rejoins."},
		{Name: "stable", Kind: KindDuration, Default: "10s", Doc: "Uptime after which a restart counts as recovered and the delay starts afresh."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    restart {
      policy    = "on-failure"
      delay     = "500ms"
      max_delay = "30s"
      attempts  = 5
      window    = "10m"
    }
  }
}`,
}

var stopBlock = &Block{
	Name: "stop",
	Doc:  "How the process is asked to end.",
	Attrs: []Attr{
		{Name: "signal", Kind: KindSignal, Default: "SIGTERM", Doc: "Signal that its process group gets first."},
		{Name: "timeout", Kind: KindDuration, Default: "10s", Doc: "Time until SIGKILL follows."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    stop {
      signal  = "SIGINT"
      timeout = "30s"
    }
  }
}`,
}

var reloadBlock = &Block{
	Name: "reload",
	Doc:  "How the running process is asked to read its files again. If only these files changed, the signal is sent and nothing is restarted.",
	Attrs: []Attr{
		{Name: "signal", Kind: KindSignal, Default: "SIGHUP", Doc: "Signal to send."},
		{Name: "files", Kind: KindTemplateList, Doc: "Files on the node, relative to `dir`."},
	},
	Example: `job "web" {
  process "nginx" {
    command = ["nginx", "-g", "daemon off;"]
    reload {
      signal = "SIGHUP"
      files  = ["/etc/nginx/nginx.conf"]
    }
  }
}`,
}

var readyBlock = &Block{
	Name: "ready",
	Doc:  "When a started process counts as running. Without it, it does as soon as it is started.",
	Attrs: []Attr{
		{Name: "notify", Kind: KindBool, Default: "false", Doc: "Wait for READY=1 on NOTIFY_SOCKET, as sd_notify(3) sends it."},
		{Name: "timeout", Kind: KindDuration, Default: "30s", Doc: "Time after which the start has failed."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    ready {
      notify  = true
      timeout = "30s"
    }
  }
}`,
}

var watchdogBlock = &Block{
	Name: "watchdog",
	Doc:  "Kill and restart the process if it does not send WATCHDOG=1 on NOTIFY_SOCKET in time (sd_notify(3)).",
	Attrs: []Attr{
		{Name: "timeout", Kind: KindDuration, Required: true, Doc: "Longest time between two WATCHDOG=1 messages."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    watchdog { timeout = "30s" }
  }
}`,
}

var logsBlock = &Block{
	Name: "logs",
	Doc:  "How much of the output is kept, for each instance.",
	Attrs: []Attr{
		{Name: "max_size", Kind: KindSize, Default: "10MiB", Min: 1, Doc: "Size at which the file is rotated."},
		{Name: "keep", Kind: KindInt, Default: "3", Min: 0, Max: 1000, Doc: "Rotated files to keep beside the current one."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    logs {
      max_size = "50MiB"
      keep     = 5
    }
  }
}`,
}

var portBlock = &Block{
	Name: "port", Label: "name", Repeat: true,
	Doc: "A port that the process listens on: `port.<name>` in its command and environment, and MESHRUN_PORT_<NAME>.",
	Attrs: []Attr{
		{Name: "static", Kind: KindInt, Min: 1, Max: 65535, Doc: "The port's number. Without it, the node chooses a free one."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server", "--listen", "127.0.0.1:${port.http}"]
    port "http" { static = 8080 }
    port "admin" {}
  }
}`,
}

var dependsOnBlock = &Block{
	Name: "depends_on", Label: "process", Repeat: true,
	Doc: "Delays the process until another one meets a condition: one of the same job (`depends_on \"db\"`), or of another job (`depends_on \"store/redis\"`). All shards of the other process must meet it, in their current version. Processes stop in the reverse order.",
	Attrs: []Attr{
		{Name: "condition", Kind: KindEnum, Values: []string{"started", "healthy", "completed"}, Default: "started",
			Doc: "The condition: `started` is running (and ready, if it says so), `healthy` passes its health checks (or is running, if it has none), `completed` ended with success."},
		{Name: "on_failure", Kind: KindEnum, Values: []string{"wait", "restart", "stop"}, Default: "wait",
			Doc: "What happens to the running process when the dependency fails later, that is, when none of its shards meets the condition any more, in any version. Updating several shards one by one is therefore no failure; updating a single shard is one while it is down. `wait`: the process keeps running; only its starts wait. `stop`: the process is stopped, after those that depend on it in the same way, and started again once the dependency meets the condition. `restart`: the process keeps running and is restarted each time a shard of the dependency (one of its first 256) was restarted for any reason and all shards meet the condition again. Such a restart obeys the update block and uses up no attempt of the restart policy; scaling the dependency restarts nothing."},
	},
	Example: `job "web" {
  process "migrate" {
    command = ["./migrate"]
    restart { policy = "on-failure" }
  }
  process "server" {
    command = ["./server"]
    depends_on "migrate" { condition = "completed" }
    depends_on "store/redis" {
      condition  = "healthy"
      on_failure = "restart"
    }
  }
}`,
}
