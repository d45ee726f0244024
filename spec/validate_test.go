package spec

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// valid returns a job that nothing is wrong with.
func valid() *Job {
	web, migrate := DefaultProcess("web"), DefaultProcess("migrate")
	web.Command = []Template{"serve"}
	web.DependsOn = []Dependency{{Process: "migrate", Condition: ConditionCompleted}}
	web.Ports = []Port{{Name: "http", Static: 80}}
	migrate.Command = []Template{"migrate"}
	migrate.Restart.Policy = RestartOnFailure
	j := &Job{Name: "shop", Processes: []Process{web, migrate}}
	j.Normalize()
	return j
}

const second = Duration(time.Second)

// update gives process web shards and an update block.
func update(shards int, spoil func(*Update)) func(*Job) {
	return func(j *Job) {
		u := DefaultUpdate()
		spoil(&u)
		j.Processes[1].Shards, j.Processes[1].Ports, j.Processes[1].Update = shards, nil, &u
	}
}

// hook returns a hook that nothing is wrong with.
func hook(when HookTime) Hook {
	h := DefaultHook(when)
	h.Command = []Template{"true"}
	return h
}

// numbers returns n different texts.
func numbers(n int) (out []string) {
	for i := range n {
		out = append(out, strconv.Itoa(i))
	}
	return out
}

func TestValidateNamesEachFault(t *testing.T) {
	// By name: migrate is process 0, web is process 1.
	tests := map[string]struct {
		spoil func(j *Job)
		path  string // with the process
		says  string // in summary or detail
	}{
		"job name":            {func(j *Job) { j.Name = "Shop" }, "/name", "lower-case"},
		"long name":           {func(j *Job) { j.Name = strings.Repeat("a", 64) }, "/name", "at most 63"},
		"reserved name":       {func(j *Job) { j.Name = "meshrun" }, "/name", "reserved"},
		"no process":          {func(j *Job) { j.Processes = nil }, "/", "at least one process"},
		"two processes":       {func(j *Job) { j.Processes[1] = j.Processes[0] }, "migrate/", "Two processes"},
		"no command":          {func(j *Job) { j.Processes[1].Command = nil }, "web/command", "empty"},
		"empty program":       {func(j *Job) { j.Processes[1].Command[0] = "" }, "web/command[0]", "empty string"},
		"NUL":                 {func(j *Job) { j.Processes[1].Command = []Template{"a", "b\x00"} }, "web/command[1]", "NUL"},
		"user":                {func(j *Job) { j.Processes[1].User = "a b" }, "web/user", "name:group"},
		"variable":            {func(j *Job) { j.Processes[1].Env = map[string]Template{"A-B": ""} }, "web/env.A-B", "letters, digits"},
		"meshrun's variable":  {func(j *Job) { j.Processes[1].Env = map[string]Template{"MESHRUN_JOB": ""} }, "web/env.MESHRUN_JOB", "set by meshrun"},
		"unknown hook":        {func(j *Job) { j.Processes[1].Hooks = []Hook{hook("before_stop")} }, "web/hook.before_stop", "after_stop"},
		"two hooks":           {func(j *Job) { j.Processes[1].Hooks = []Hook{hook(HookAfterStop), hook(HookAfterStop)} }, "web/hook.after_stop", "one script"},
		"hook without":        {func(j *Job) { h := hook(HookAfterStop); h.Command = nil; j.Processes[1].Hooks = []Hook{h} }, "web/hook.after_stop.command", "empty"},
		"hook of nothing":     {func(j *Job) { h := hook(HookAfterStop); h.Command[0] = ""; j.Processes[1].Hooks = []Hook{h} }, "web/hook.after_stop.command[0]", "empty string"},
		"NUL in a hook":       {func(j *Job) { h := hook(HookBeforeStart); h.Command[0] = "a\x00"; j.Processes[1].Hooks = []Hook{h} }, "web/hook.before_start.command[0]", "NUL"},
		"hook without time":   {func(j *Job) { h := hook(HookBeforeStart); h.Timeout = 0; j.Processes[1].Hooks = []Hook{h} }, "web/hook.before_start.timeout", "killed"},
		"too many shards":     {func(j *Job) { j.Processes[0].Shards = MaxShards + 1 }, "migrate/shards", "from 0 to"},
		"unknown policy":      {func(j *Job) { j.Processes[1].Restart.Policy = "maybe" }, "web/restart.policy", "on-failure"},
		"never with attempts": {func(j *Job) { r := &j.Processes[0].Restart; r.Policy, r.Attempts = RestartNever, 7 }, "migrate/restart.attempts", "contradicts"},
		"too many attempts": {func(j *Job) {
			r := &j.Processes[1].Restart
			r.Attempts, r.Delay = MaxAttempts+1, 0
		}, "web/restart.attempts", `exhausted = "retry"`},
		"always with none":    {func(j *Job) { j.Processes[1].Restart.Attempts = 0 }, "web/restart.attempts", `policy = "never"`},
		"delay above maximum": {func(j *Job) { j.Processes[1].Restart.MaxDelay = 0 }, "web/restart.delay", "max_delay"},
		"attempts don't fit":  {func(j *Job) { j.Processes[1].Restart.Attempts = 20 }, "web/restart.window", "never fit"},
		"window of nothing":   {func(j *Job) { j.Processes[1].Restart.Window = 0 }, "web/restart.window", "empty"},
		"stable above window": {func(j *Job) { j.Processes[1].Restart.Stable = 301 * second }, "web/restart.stable", "forgotten"},
		"retry without pause": {func(j *Job) { r := &j.Processes[1].Restart; r.Exhausted, r.Delay, r.MaxDelay = ExhaustedRetry, 0, 0 }, "web/restart.max_delay", "need a delay"},
		"never rescheduled": {func(j *Job) {
			r := &j.Processes[0].Restart
			r.Policy, r.Exhausted = RestartNever, ExhaustedReschedule
		}, "migrate/restart.exhausted", "uses no attempts up"},
		"run elsewhere": {func(j *Job) {
			p := &j.Processes[1]
			p.Schedule, p.Restart.Policy, p.Restart.Exhausted = &Schedule{Cron: "0 3 * * *", TimeZone: "UTC"}, RestartOnFailure, ExhaustedReschedule
		}, "web/restart.exhausted", "its next run"},
		"static and shards":  {func(j *Job) { j.Processes[1].Shards = 2 }, "web/port.http.static", "cannot share"},
		"port taken":         {func(j *Job) { j.Processes[0].Ports = []Port{{Name: "x", Static: 80}} }, "web/port.http.static", `process "migrate"`},
		"two ports":          {func(j *Job) { j.Processes[1].Ports = []Port{{Name: "a"}, {Name: "a"}} }, "web/port.a", "Two ports"},
		"port number":        {func(j *Job) { j.Processes[1].Ports[0].Static = 70000 }, "web/port.http.static", "65535"},
		"constraint's label": {func(j *Job) { j.Processes[1].Placing = &Placing{Constraints: []Constraint{{Is: "ssd"}}} }, "web/placement.constraint", "is empty"},
		"two values": {func(j *Job) {
			j.Processes[1].Placing = &Placing{Constraints: []Constraint{{Label: "disk", Is: "ssd"}, {Label: "disk", Is: "hdd"}}}
		}, "web/placement.constraint.disk", `"ssd" and "hdd"`},
		"one value twice": {func(j *Job) {
			j.Processes[1].Placing = &Placing{Constraints: []Constraint{{Label: "disk", Is: "ssd"}, {Label: "disk", Is: "ssd"}}}
		}, "web/placement.constraint.disk", "demanded twice"},
		"spread's label": {func(j *Job) { j.Processes[1].Placing = &Placing{Spreads: []Spread{{}}} }, "web/placement.spread", "is empty"},
		"spread twice":   {func(j *Job) { j.Processes[1].Placing = &Placing{Spreads: []Spread{{"zone"}, {"zone"}}} }, "web/placement.spread.zone", "twice"},
		"spread over one value": {func(j *Job) {
			j.Processes[1].Placing = &Placing{Constraints: []Constraint{{Label: "zone", Is: "a"}}, Spreads: []Spread{{"zone"}}}
		}, "web/placement.spread.zone", "nothing to spread over"},
		"service's name":         {func(j *Job) { j.Processes[1].Services = []Service{{}} }, "web/service", "is empty"},
		"service of no DNS":      {func(j *Job) { j.Processes[1].Services = []Service{{Name: "my_web"}} }, "web/service.my_web", "label of DNS"},
		"service that ends bad":  {func(j *Job) { j.Processes[1].Services = []Service{{Name: "web-"}} }, "web/service.web-", "label of DNS"},
		"long service":           {func(j *Job) { j.Processes[1].Services = []Service{{Name: strings.Repeat("a", 64)}} }, "web/service." + strings.Repeat("a", 64), "at most 63"},
		"Consul's service":       {func(j *Job) { j.Processes[1].Services = []Service{{Name: "consul"}} }, "web/service.consul", "its own servers"},
		"meshrun's service":      {func(j *Job) { j.Processes[1].Services = []Service{{Name: "meshrun-agent"}} }, "web/service.meshrun-agent", "its own agents"},
		"two services":           {func(j *Job) { j.Processes[1].Services = []Service{{Name: "w"}, {Name: "w", Port: "http"}} }, "web/service.w", "Two services"},
		"misspelt port":          {func(j *Job) { j.Processes[1].Services = []Service{{Name: "w", Port: "htpp"}} }, "web/service.w.port", `Did you mean "http"`},
		"unknown port":           {func(j *Job) { j.Processes[0].Services = []Service{{Name: "w", Port: "http"}} }, "migrate/service.w.port", `Add port "http" {}`},
		"empty tag":              {func(j *Job) { j.Processes[1].Services = []Service{{Name: "w", Tags: []string{"a", ""}}} }, "web/service.w.tags[1]", "1 to 255"},
		"tag with a line":        {func(j *Job) { j.Processes[1].Services = []Service{{Name: "w", Tags: []string{"a\nb"}}} }, "web/service.w.tags[0]", "control"},
		"tag twice":              {func(j *Job) { j.Processes[1].Services = []Service{{Name: "w", Tags: []string{"a", "a"}}} }, "web/service.w.tags[1]", "twice"},
		"many tags":              {func(j *Job) { j.Processes[1].Services = []Service{{Name: "w", Tags: numbers(65)}} }, "web/service.w.tags", "At most 64"},
		"hasty watchdog":         {func(j *Job) { j.Processes[1].Watchdog = &Watchdog{Timeout: 1} }, "web/watchdog.timeout", "busy"},
		"signal":                 {func(j *Job) { j.Processes[1].Stop.Signal = "SIGTREM" }, "web/stop.signal", `Did you mean "SIGTERM"`},
		"reload by SIGKILL":      {func(j *Job) { j.Processes[1].Reload = &Reload{Signal: "SIGKILL"} }, "web/reload.signal", "No process can handle"},
		"tiny logs":              {func(j *Job) { j.Processes[1].Logs.MaxSize = 1 }, "web/logs.max_size", "too small"},
		"misspelt dependency":    {func(j *Job) { j.Processes[1].DependsOn[0].Process = "migarte" }, "web/depends_on.migarte", `Did you mean "migrate"`},
		"unknown dependency":     {func(j *Job) { j.Processes[1].DependsOn[0].Process = "db" }, "web/depends_on.db", "migrate, web"},
		"depends on itself":      {func(j *Job) { j.Processes[1].DependsOn[0].Process = "web" }, "web/depends_on.web", "itself"},
		"never completes":        {func(j *Job) { j.Processes[0].Restart.Policy = RestartAlways }, "web/depends_on.migrate.condition", "never completes"},
		"nothing to depend on":   {func(j *Job) { j.Processes[0].Shards = 0 }, "web/depends_on.migrate", "no shards"},
		"ring":                   {func(j *Job) { j.Processes[0].DependsOn = []Dependency{DefaultDependency("web")} }, "migrate/depends_on.web", "migrate → web → migrate"},
		"nothing in parallel":    {update(2, func(u *Update) { u.MaxParallel = 0 }), "web/update.max_parallel", "1 or more"},
		"all are canaries":       {update(2, func(u *Update) { u.Canary = 2 }), "web/update.canary", "Set canary to 1 or less, or shards to more than 2"},
		"the one is a canary":    {update(1, func(u *Update) { u.Canary = 1 }), "web/update.canary", "auto_revert"},
		"canaries below none":    {update(2, func(u *Update) { u.Canary = -1 }), "web/update.canary", "no trial"},
		"none to promote":        {update(2, func(u *Update) { u.AutoPromote = true }), "web/update.auto_promote", "Set canary"},
		"never healthy in time":  {update(2, func(u *Update) { u.MinHealthy = u.HealthyDeadline }), "web/update.healthy_deadline", `more than "5m"`},
		"hasty rollout":          {update(2, func(u *Update) { u.ProgressDeadline = u.HealthyDeadline - 1 }), "web/update.progress_deadline", `"5m" or more`},
		"hasty stagger":          {update(2, func(u *Update) { u.Stagger = u.ProgressDeadline }), "web/update.stagger", `less than "10m"`},
		"far name of a near one": {func(j *Job) { j.Processes[1].DependsOn[0].Process = "shop/migrate" }, "web/depends_on.shop/migrate", `Write depends_on "migrate"`},
		"no far name":            {func(j *Job) { j.Processes[1].DependsOn[0].Process = "store/" }, "web/depends_on.store/", "job/process"},
		"condition":              {func(j *Job) { j.Processes[1].DependsOn[0].Condition = "ready" }, "web/depends_on.migrate.condition", "healthy"},
		"on failure":             {func(j *Job) { j.Processes[1].DependsOn[0].OnFailure = "reboot" }, "web/depends_on.migrate.on_failure", "restart"},
		"limits of nothing":      {func(j *Job) { j.Processes[1].Resources = &Resources{} }, "web/resources", "cpu, memory or pids"},
		"no processor":           {func(j *Job) { j.Processes[1].Resources = &Resources{CPU: -1} }, "web/resources.cpu", "half of one"},
		"hardly a processor":     {func(j *Job) { j.Processes[1].Resources = &Resources{CPU: 0.001} }, "web/resources.cpu", "half of one"},
		"no memory":              {func(j *Job) { j.Processes[1].Resources = &Resources{Memory: 1 << 20} }, "web/resources.memory", "4MiB"},
		"no process allowed":     {func(j *Job) { j.Processes[1].Resources = &Resources{PIDs: -1} }, "web/resources.pids", "at least 1"},
		"restart of nothing": {func(j *Job) {
			g := DefaultGuard(GuardAbsent)
			g.Action = GuardRestart
			j.Processes[1].Guards = []Guard{g}
		}, "web/guard.absent.action", `exhausted = "retry"`},
		"bound of nothing": {func(j *Job) {
			g := DefaultGuard(GuardAbsent)
			g.Above = "3"
			j.Processes[1].Guards = []Guard{g}
		}, "web/guard.absent.above", "Remove above"},
		"too large": {func(j *Job) {
			j.Processes[0].Env = map[string]Template{"A": Template(strings.Repeat("x", MaxJobBytes))}
		}, "/", "KiB"},
		"too large for two versions": {func(j *Job) {
			u := DefaultUpdate()
			j.Processes[1].Update, j.Processes[1].Shards, j.Processes[1].Ports = &u, 2, nil
			j.Processes[1].Env = map[string]Template{"A": Template(strings.Repeat("x", MaxJobBytes*6/10))}
		}, "/", "its old and its new version"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			j := valid()
			test.spoil(j)
			problems := Validate(j)
			if len(problems) != 1 {
				t.Fatalf("found %d problems: %v", len(problems), problems)
			}
			p := problems[0]
			if got := p.Process + "/" + p.Path; got != test.path {
				t.Errorf("at %q, want %q", got, test.path)
			}
			if !strings.Contains(p.Summary+" "+p.Detail, test.says) {
				t.Errorf("%v does not say %q", p, test.says)
			}
			if p.Detail == "" {
				t.Errorf("%v does not say how to mend it", p)
			}
		})
	}
}

func TestValidateFindsNothingWrongWithWhatWorks(t *testing.T) {
	for name, change := range map[string]func(j *Job){
		"as it is":  func(*Job) {},
		"no shards": func(j *Job) { j.Processes[1].Shards = 0 },
		"services": func(j *Job) {
			j.Processes[0].Services = []Service{{Name: "0"}, {Name: "shop-web", Tags: []string{"v2", "Ünder score"}}}
			j.Processes[1].Services = []Service{{Name: "shop-web", Port: "http"}}
		},
		"restarts at once":       func(j *Job) { j.Processes[1].Restart.Delay = 0 },
		"another node":           func(j *Job) { j.Processes[1].Restart.Exhausted = ExhaustedReschedule },
		"retries without end":    func(j *Job) { r := &j.Processes[1].Restart; r.Exhausted, r.Attempts = ExhaustedRetry, 0 },
		"never restarts":         func(j *Job) { j.Processes[0].Restart.Policy = RestartNever },
		"attempts that just fit": func(j *Job) { j.Processes[1].Restart.Attempts = 9 },
		"real-time signal":       func(j *Job) { j.Processes[1].Stop.Signal = "SIGRTMIN+3" },
		"canaries of some":       update(4, func(u *Update) { u.Canary, u.AutoPromote = 3, true }),
		"more at once than are":  update(4, func(u *Update) { u.MaxParallel = 100 }),
		"deadlines alike":        update(4, func(u *Update) { u.ProgressDeadline = u.HealthyDeadline }),
		"canaries of none yet":   update(0, func(u *Update) { u.Canary = 3 }),
		"healthy at once":        update(4, func(u *Update) { u.MinHealthy = 0 }),
		"user and group":         func(j *Job) { j.Processes[1].User = "www-data:adm" },
	} {
		j := valid()
		change(j)
		if problems := Validate(j); len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
	}
}

func TestThreeProcessesInARingAreNamedOnceInOrder(t *testing.T) {
	j := &Job{Name: "j"}
	for name, on := range map[string]string{"a": "b", "b": "c", "c": "a", "d": "a"} {
		p := DefaultProcess(name)
		p.Command = []Template{"x"}
		p.DependsOn = []Dependency{DefaultDependency(on)}
		j.Processes = append(j.Processes, p)
	}
	j.Normalize()
	problems := Validate(j)
	if len(problems) != 1 || !strings.Contains(problems[0].Summary, "a → b → c → a") {
		t.Fatalf("got %v", problems)
	}
}

func TestNormalizeKeepsZerosThatWereMeant(t *testing.T) {
	p := DefaultProcess("web")
	p.Restart.Delay, p.Restart.Stable, p.Logs.Keep = 0, 0, 0
	p.Stop.Signal = "int"
	j := &Job{Name: "j", Processes: []Process{p, {Name: "bare"}}}
	j.Normalize()
	if r := j.Processes[1].Restart; r.Delay != 0 || r.Stable != 0 || j.Processes[1].Logs.Keep != 0 {
		t.Errorf("zeros became %+v", r)
	}
	if s := j.Processes[1].Stop.Signal; s != "SIGINT" {
		t.Errorf("signal is spelt %q", s)
	}
	if bare := j.Processes[0]; bare.Restart != DefaultRestart() || bare.Stop != DefaultStop() || bare.Logs != DefaultLogs() {
		t.Errorf("missing blocks became %+v", bare)
	}
}

func TestSignalsHaveNamesAndNumbers(t *testing.T) {
	for n := 1; n <= 64; n++ {
		s := SignalOf(n)
		if got, ok := s.Number(); (ok && got != n) || (!ok && n != 32 && n != 33) {
			t.Errorf("%d is %q is %d, %v", n, s, got, ok)
		}
	}
	for text, want := range map[string]Signal{"term": "SIGTERM", "SIGHUP": "SIGHUP", "rtmin+30": "SIGRTMIN+30"} {
		if got, ok := ParseSignal(text); !ok || got != want {
			t.Errorf("ParseSignal(%q) = %q, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "SIGNOPE", "SIGRTMIN+31", "SIGRTMIN+", "15"} {
		if got, ok := ParseSignal(text); ok {
			t.Errorf("ParseSignal(%q) = %q", text, got)
		}
	}
}
