package schema

// The blocks below are read and checked as any other, and then refused: this
// version has nothing that acts on them, and nothing is ignored silently.

var healthBlock = &Block{
	Name: "health", Label: "name", Repeat: true,
	Doc:   "A check of the running process.",
	Needs: `needs health checks, which this version of meshrun cannot run yet; remove the block (readiness through ready { notify = true } works today)`,
	Attrs: []Attr{
		{Name: "url", Kind: KindTemplate, Doc: "HTTP address that must answer with a status below 400."},
		{Name: "interval", Kind: KindDuration, Default: "10s", Doc: "Time between two checks."},
		{Name: "timeout", Kind: KindDuration, Default: "1s", Doc: "Time that an answer may take."},
		{Name: "failures", Kind: KindInt, Default: "3", Min: 1, Max: 1000, Doc: "Failed checks in a row that make it unhealthy."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server", "--port", port.http]
    port "http" {}
    health "http" {
      url      = "http://127.0.0.1:${port.http}/healthz"
      interval = "5s"
    }
  }
}`,
}

var guardBlock = &Block{
	Name: "guard", Label: "resource", LabelValues: []string{"cpu", "memory"}, Repeat: true,
	Doc:   "Acts when the process uses too much of something for too long.",
	Needs: `needs measuring of processes, which this version of meshrun cannot do yet; remove the block`,
	Attrs: []Attr{
		{Name: "above", Kind: KindAmount, Required: true, Doc: "Percentage of one core (`95%`), or size of memory (`512MiB`)."},
		{Name: "for", Kind: KindDuration, Default: "0s", Doc: "How long before the guard acts."},
		{Name: "action", Kind: KindEnum, Values: []string{"restart", "alert"}, Required: true, Doc: "What it does."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    guard "memory" {
      above  = "512MiB"
      for    = "30s"
      action = "restart"
    }
  }
}`,
}

var resourcesBlock = &Block{
	Name:  "resources",
	Doc:   "Scheduling weights and limits.",
	Needs: `needs cgroups, which this version of meshrun cannot set up yet; remove the block`,
	Attrs: []Attr{
		{Name: "cpu", Kind: KindFloat, Min: 0, Max: 4096, Doc: "Cores."},
		{Name: "memory", Kind: KindSize, Min: 1, Doc: "Most memory."},
		{Name: "pids", Kind: KindInt, Min: 1, Max: 1 << 22, Doc: "Most processes and threads."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    resources {
      cpu    = 0.5
      memory = "256MiB"
    }
  }
}`,
}

var updateBlock = &Block{
	Name:  "update",
	Doc:   "How a new version is rolled out.",
	Needs: `needs rolling updates, which this version of meshrun cannot do yet: a change restarts all that it concerns at once; remove the block`,
	Attrs: []Attr{
		{Name: "max_parallel", Kind: KindInt, Default: "1", Min: 1, Max: 65536, Doc: "Shards that are changed at the same time."},
		{Name: "canary", Kind: KindInt, Default: "0", Min: 0, Max: 65536, Doc: "Shards that are changed first, as a trial."},
		{Name: "min_healthy", Kind: KindDuration, Default: "10s", Doc: "How long a shard must be healthy before the next one's turn."},
		{Name: "auto_revert", Kind: KindBool, Default: "false", Doc: "Go back to the last good version on failure."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    shards  = 8
    update {
      max_parallel = 2
      auto_revert  = true
    }
  }
}`,
}

var scheduleBlock = &Block{
	Name:  "schedule",
	Doc:   "Starts the process at times.",
	Needs: `needs timed starts, which this version of meshrun cannot do yet; remove the block (cron or a systemd timer can start the program meanwhile)`,
	Attrs: []Attr{
		{Name: "cron", Kind: KindString, Required: true, Doc: "Minute, hour, day of month, month and day of week, as in crontab(5)."},
		{Name: "time_zone", Kind: KindString, Default: "UTC", Doc: "Time zone of `cron`."},
		{Name: "overlap", Kind: KindBool, Default: "false", Doc: "Start even if the last run has not ended."},
	},
	Example: `job "reports" {
  process "nightly" {
    command = ["./report.sh"]
    schedule {
      cron      = "0 3 * * *"
      time_zone = "Europe/Berlin"
    }
  }
}`,
}

var hookBlock = &Block{
	Name: "hook", Label: "when", LabelValues: []string{"before_start", "after_stop"}, Repeat: true,
	Doc:   "A command that runs around the process's life.",
	Needs: `needs hooks, which this version of meshrun cannot run yet; remove the block (a process that others wait for with depends_on and condition = "completed" works today)`,
	Attrs: []Attr{
		{Name: "command", Kind: KindTemplateList, Required: true, Doc: "Program and arguments, as a list."},
		{Name: "timeout", Kind: KindDuration, Default: "30s", Doc: "Time that it may take."},
	},
	Example: `job "web" {
  process "server" {
    command = ["./server"]
    hook "before_start" {
      command = ["./warm-up"]
      timeout = "10s"
    }
  }
}`,
}
