package spec

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// MinWatchdogTimeout is the shortest watchdog timeout: shorter ones kill what
// is merely busy.
const MinWatchdogTimeout = Duration(100 * time.Millisecond)

// MaxAttempts is the most restarts that a policy can count: the watchdog keeps
// the time of each in memory and in its journal.
const MaxAttempts = 1000

// MinLogSize is the smallest log file: a smaller one would rotate all the time.
const MinLogSize = Size(4 << 10)

// restart refuses policies that contradict themselves.
func (v *validator) restart(p *Process) {
	r := p.Restart
	switch r.Policy {
	case RestartAlways, RestartOnFailure:
	case RestartNever:
		if r.Attempts != 0 && r.Attempts != DefaultRestart().Attempts {
			v.add(p.Name, "restart.attempts", fmt.Sprintf("policy \"never\" contradicts %d attempts", r.Attempts),
				`Remove attempts, or write policy = "on-failure" (or "always") to restart that often.`)
		}
		if r.Exhausted == ExhaustedReschedule {
			v.add(p.Name, "restart.exhausted", `policy "never" contradicts exhausted = "reschedule"`,
				`A process that is never restarted uses no attempts up. Write policy = "on-failure" (or "always"), or remove exhausted.`)
		}
		return // the other fields say nothing then
	default:
		v.add(p.Name, "restart.policy", fmt.Sprintf("%q is not a restart policy", r.Policy), `Write "always", "on-failure" or "never".`)
		return
	}
	switch r.Exhausted {
	case ExhaustedFail, ExhaustedRetry, ExhaustedReschedule:
	default:
		v.add(p.Name, "restart.exhausted", fmt.Sprintf("%q is not known", r.Exhausted), `Write "fail" (stay down and alert), "retry" (alert and go on trying every max_delay) or "reschedule" (try another node).`)
	}
	if r.Attempts < 0 || (r.Attempts == 0 && r.Exhausted != ExhaustedRetry) {
		v.add(p.Name, "restart.attempts", fmt.Sprintf("policy %q with %d attempts never restarts anything", r.Policy, r.Attempts),
			`Write policy = "never" if that is meant, attempts = 1 or more to limit restarts, or exhausted = "retry" to go on without end.`)
	}
	if r.Attempts > MaxAttempts {
		v.add(p.Name, "restart.attempts", fmt.Sprintf("%d attempts are more than the %d that can be counted", r.Attempts, MaxAttempts),
			fmt.Sprintf(`Write attempts = %d or less, or exhausted = "retry" to go on without end.`, MaxAttempts))
	}
	if r.Delay > r.MaxDelay {
		v.add(p.Name, "restart.delay", fmt.Sprintf("The first delay (%s) is longer than the longest (%s)", r.Delay, r.MaxDelay),
			fmt.Sprintf("Set max_delay = %q or more, or delay to %q or less.", r.Delay, r.MaxDelay))
	}
	if r.Exhausted == ExhaustedRetry && r.MaxDelay == 0 {
		v.add(p.Name, "restart.max_delay", "Endless retries need a delay",
			`With exhausted = "retry", max_delay is the time between two tries. Set it to "1s" or more.`)
	}
	v.window(p)
}

// window refuses windows in which the attempts can never be used up.
func (v *validator) window(p *Process) {
	r := p.Restart
	if r.Window <= 0 {
		v.add(p.Name, "restart.window", "The window is empty", `attempts are counted within the window. Set it to "5m", for example.`)
		return
	}
	if r.Attempts <= 0 || r.Delay > r.MaxDelay {
		return
	}
	if took := r.shortestExhaustion(); took >= r.Window {
		v.add(p.Name, "restart.window", fmt.Sprintf("%d restarts never fit into the window of %s", r.Attempts, r.Window),
			fmt.Sprintf("Their delays alone take %s, so the attempts would never be used up and a process that always crashes would be restarted without end. "+
				"Set window to more than %q, use fewer attempts or shorter delays, or say what is meant: exhausted = \"retry\" with attempts = 0.", took, took))
	}
	if r.Stable > r.Window {
		v.add(p.Name, "restart.stable", fmt.Sprintf("stable (%s) is longer than the window (%s)", r.Stable, r.Window),
			fmt.Sprintf("A restart would be forgotten before it counts as recovered. Set stable to %q or less, or window to %q or more.", r.Window, r.Stable))
	}
}

// shortestExhaustion returns the least time, jitter aside, from the first
// restart of a window to the last one that the attempts allow, for a process
// that ends as soon as it is started.
func (r *Restart) shortestExhaustion() Duration {
	var took Duration
	delay := r.Delay
	for left := Duration(r.Attempts - 1); left > 0 && delay > 0; left-- {
		delay = min(delay*2, r.MaxDelay)
		if delay == r.MaxDelay {
			if left > (1<<61)/delay {
				return 1 << 62
			}
			return took + left*delay
		}
		took += delay
	}
	return took
}

// signals checks every signal of a process.
func (v *validator) signals(p *Process) {
	v.signal(p, "stop.signal", p.Stop.Signal)
	if p.Reload == nil {
		return
	}
	v.signal(p, "reload.signal", p.Reload.Signal)
	switch p.Reload.Signal {
	case "SIGKILL", "SIGSTOP":
		v.add(p.Name, "reload.signal", fmt.Sprintf("No process can handle %s", p.Reload.Signal), `A reload needs a signal that the process can handle, such as "SIGHUP".`)
	}
	for i, f := range p.Reload.Files {
		path := fmt.Sprintf("reload.files[%d]", i)
		if f == "" {
			v.add(p.Name, path, "The path of a file is empty", "Write a path on the node, absolute or relative to dir.")
		}
		v.nul(p, path, string(f))
	}
}

func (v *validator) signal(p *Process, path string, s Signal) {
	if s.Known() {
		return
	}
	detail := `Write a signal's name, such as "SIGTERM", "SIGINT" or "SIGRTMIN+3".`
	if near := Nearest(string(s), SignalNames()); near != "" {
		detail = fmt.Sprintf("Did you mean %q?", near)
	}
	v.add(p.Name, path, fmt.Sprintf("%q is not a signal", s), detail)
}

// limits checks times and sizes.
func (v *validator) limits(p *Process) {
	if p.Ready != nil && p.Ready.Timeout <= 0 {
		v.add(p.Name, "ready.timeout", "The timeout must be more than 0", `Set timeout to the time that a start may take, such as "30s".`)
	}
	if p.Watchdog != nil && p.Watchdog.Timeout < MinWatchdogTimeout {
		v.add(p.Name, "watchdog.timeout", fmt.Sprintf("A watchdog of %s kills what is merely busy", p.Watchdog.Timeout),
			fmt.Sprintf("Set timeout to %q at least; %q is usual.", MinWatchdogTimeout, "30s"))
	}
	if p.Logs.MaxSize < MinLogSize {
		v.add(p.Name, "logs.max_size", fmt.Sprintf("A log file of %s is too small", p.Logs.MaxSize),
			fmt.Sprintf("Set max_size to %q at least.", MinLogSize))
	}
	if p.Logs.Keep < 0 || p.Logs.Keep > MaxFiles {
		v.add(p.Name, "logs.keep", fmt.Sprintf("%d files cannot be kept", p.Logs.Keep), fmt.Sprintf("Write a number from 0 to %d.", MaxFiles))
	}
}

// Bounds of a service's tags: Consul keeps them in its memory on every server.
const (
	maxTags     = 64
	maxTagBytes = 255
)

// takenServices are names that stand for something else in every Consul.
var takenServices = map[string]string{
	"consul":     "Consul lists its own servers under it.",
	AgentService: "meshrun lists its own agents under it.",
}

// services checks what is to be listed in a catalog.
func (v *validator) services(p *Process) {
	var ports []string
	for _, port := range p.Ports {
		ports = append(ports, port.Name)
	}
	seen := map[string]bool{}
	for _, s := range p.Services {
		path := "service." + s.Name
		switch why, taken := takenServices[s.Name]; {
		case s.Name == "":
			v.add(p.Name, "service", "The name of a service is empty", `Write the name by which others shall find it, such as "web".`)
		case len(s.Name) > MaxNameLength || !dnsPattern.MatchString(s.Name):
			v.add(p.Name, path, fmt.Sprintf("%q is not a name for a service", s.Name),
				fmt.Sprintf("It is a label of DNS: at most %d lower-case letters, digits and \"-\", which begins and ends with a letter or digit.", MaxNameLength))
		case taken:
			v.add(p.Name, path, fmt.Sprintf("The service name %q is taken", s.Name), why+" Choose another name.")
		case seen[s.Name]:
			v.add(p.Name, path, fmt.Sprintf("Two services are named %q", s.Name), "Names of services are unique within a process. Remove or rename one of the two, or give one service both tags.")
		}
		seen[s.Name] = true
		if s.Port != "" && !slices.Contains(ports, s.Port) {
			detail := fmt.Sprintf("Add port %q {} to the process.", s.Port)
			if near := Nearest(s.Port, ports); near != "" {
				detail = fmt.Sprintf("Did you mean %q?", near)
			}
			v.add(p.Name, path+".port", fmt.Sprintf("The process has no port %q", s.Port), detail)
		}
		v.tags(p, path+".tags", s.Tags)
	}
}

func (v *validator) tags(p *Process, path string, tags []string) {
	if len(tags) > maxTags {
		v.add(p.Name, path, fmt.Sprintf("%d tags are too many", len(tags)), fmt.Sprintf("At most %d are allowed.", maxTags))
	}
	for i, tag := range tags {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case tag == "" || len(tag) > maxTagBytes || strings.ContainsFunc(tag, unicode.IsControl):
			v.add(p.Name, at, fmt.Sprintf("%q is not a tag", tag), fmt.Sprintf("Write 1 to %d bytes without control characters.", maxTagBytes))
		case slices.Contains(tags[:i], tag):
			v.add(p.Name, at, fmt.Sprintf("The tag %q is there twice", tag), "Remove one of the two.")
		}
	}
}

// placing refuses rules that no node can keep, or that say the same twice.
func (v *validator) placing(p *Process) {
	if p.Placing == nil {
		return
	}
	demanded := map[string]string{}
	for _, c := range p.Placing.Constraints {
		path := "placement.constraint." + c.Label
		is, twice := demanded[c.Label]
		switch {
		case c.Label == "":
			v.add(p.Name, "placement.constraint", "The label of a constraint is empty", `Write the name of a node's label, such as "disk".`)
		case twice && is == c.Is:
			v.add(p.Name, path, fmt.Sprintf("The label %q is demanded twice", c.Label), "Remove one of the two constraints.")
		case twice:
			v.add(p.Name, path, fmt.Sprintf("No node has label %q with two values", c.Label),
				fmt.Sprintf("The constraints demand %q and %q. Keep one of them, or give the nodes that are meant a label of their own.", is, c.Is))
		}
		demanded[c.Label] = c.Is
	}
	seen := map[string]bool{}
	for _, s := range p.Placing.Spreads {
		is, fixed := demanded[s.Label]
		switch path := "placement.spread." + s.Label; {
		case s.Label == "":
			v.add(p.Name, "placement.spread", "The label of a spread is empty", `Write the name of a node's label, such as "zone".`)
		case seen[s.Label]:
			v.add(p.Name, path, fmt.Sprintf("The shards are spread over label %q twice", s.Label), "Remove one of the two spread blocks.")
		case fixed:
			v.add(p.Name, path, fmt.Sprintf("There is nothing to spread over: label %q has one value", s.Label),
				fmt.Sprintf("A constraint demands %s = %q. Remove it, or the spread block.", s.Label, is))
		}
		seen[s.Label] = true
	}
}
