package engine

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/synergymesh/meshrun/spec"
)

// Account is a user of the node.
type Account struct {
	Name, Home, Shell string
}

// Host is the node that launches are made for.
type Host struct {
	Node   string
	Labels map[string]string
	// Environ is the agent's own environment, unless it is set; see baseEnv for
	// what launches take over from it.
	Environ []string
	// Account looks a user up; the empty name stands for the agent's own user. Nil
	// asks the system.
	Account func(name string) (Account, error)
	// PortFree reports whether nobody listens on a port; nil tries.
	PortFree func(port int) bool
	// Expand fills in a template that is not literal.
	Expand func(spec.Template, spec.Runtime) (string, error)
}

func (h *Host) setDefaults() {
	if h.Environ == nil {
		h.Environ = os.Environ()
	}
	if h.Account == nil {
		h.Account = newAccounts(h.Environ).lookup
	}
	if h.PortFree == nil {
		h.PortFree = bindable
	}
}

// Given is what one instance got on its node.
type Given struct {
	// Hash is spec.ReplaceHash of the process, if it is at hand.
	Hash  string
	Ports map[string]int
	// Token is the fencing token of an exclusive shard, Lease the session under
	// whose lease it lives, if it lives under one.
	Token uint64
	Lease string
	// Digest tells the contents of the process's reload files: see ReloadFiles.
	Digest string
}

// Launch makes the launch of one shard: templates filled in, the environment
// complete. It is pure but for what Host's functions do. Errors never hold
// values of the environment.
func Launch(p *spec.AssignedProcess, id spec.InstanceID, given Given, host *Host) (spec.Launch, error) {
	x := expander{host: host, run: spec.Runtime{
		ShardIndex: id.Shard, ShardCount: p.Process.Shards,
		NodeName: host.Node, NodeLabels: host.Labels, Ports: given.Ports,
	}}
	proc := &p.Process
	l := spec.Launch{
		ID: id, Version: p.Version, Hash: given.Hash, Epoch: p.Epochs[id.Shard],
		User: proc.User, Exclusive: proc.Exclusive, Critical: proc.Critical, Lease: given.Lease,
		Restart: proc.Restart, Stop: proc.Stop, Ready: proc.Ready, Watchdog: proc.Watchdog,
		Logs: proc.Logs, Ports: given.Ports, Resources: proc.Resources,
	}
	if expire, ok := p.Expire[id.Shard]; ok {
		l.Expire = &expire
	}
	if l.Hash == "" {
		l.Hash = spec.ReplaceHash(proc)
	}
	if len(proc.Command) == 0 {
		return spec.Launch{}, fmt.Errorf("make launch of %s: the command is empty", id)
	}
	l.Argv = x.argv(proc.Command, "command")
	l.Dir = x.dir(proc)
	l.Hooks = x.hooks(proc)
	l.Reload = x.reload(proc, l.Dir)
	if l.Reload != nil && len(l.Reload.Files) > 0 {
		l.ReloadHash = reloadHash(proc, given.Digest)
	}
	account, err := host.Account(userName(proc.User))
	if err != nil {
		return spec.Launch{}, fmt.Errorf("make launch of %s: look up user: %w", id, err)
	}
	l.Env = x.env(proc, id, given, account)
	l.Secrets = secrets(proc, &l)
	if x.err == nil {
		x.err = check(&l)
	}
	if x.err != nil {
		return spec.Launch{}, fmt.Errorf("make launch of %s: %w", id, x.err)
	}
	return l, nil
}

// secrets returns what a message about a failed start must not quote, what is
// longer first.
func secrets(p *spec.Process, l *spec.Launch) []string {
	if len(p.Sensitive) == 0 {
		return nil
	}
	var out []string
	hide := func(path, value string) {
		if value != "" && p.Hides(path) {
			out = append(out, value, filepath.Clean(value))
		}
	}
	command := func(path string, argv []string) {
		for i, arg := range argv {
			hide(path+"["+strconv.Itoa(i)+"]", arg)
		}
	}
	hide("dir", l.Dir)
	hide("user", l.User)
	hide("user", userName(l.User))
	command("command", l.Argv)
	for _, h := range l.Hooks {
		command("hook."+string(h.When)+".command", h.Argv)
	}
	for _, kv := range l.Env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			for _, dir := range filepath.SplitList(path) {
				hide("env.PATH", dir)
			}
		}
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	return slices.Compact(out)
}

// check refuses what templates may have made of good intentions: only on the
// node can it be seen. It tells no values of the environment.
func check(l *spec.Launch) error {
	if l.Argv[0] == "" {
		return errors.New("command[0] is empty on this node: it must name a program")
	}
	if !filepath.IsAbs(l.Dir) {
		return fmt.Errorf("dir is %q on this node: it must be an absolute path", spec.Conceal(l.Dir, l.Secrets))
	}
	if err := checkArgs("command", l.Argv); err != nil {
		return err
	}
	for _, h := range l.Hooks {
		what := "hook." + string(h.When) + ".command"
		if h.Argv[0] == "" {
			return fmt.Errorf("%s[0] is empty on this node: it must name a program", what)
		}
		if err := checkArgs(what, h.Argv); err != nil {
			return err
		}
	}
	for _, kv := range l.Env {
		if strings.ContainsRune(kv, 0) {
			name, _, _ := strings.Cut(kv, "=")
			return fmt.Errorf("env.%s has a NUL byte, which no program can be given", strings.ReplaceAll(name, "\x00", "?"))
		}
	}
	return nil
}

func checkArgs(what string, argv []string) error {
	for i, arg := range argv {
		if strings.ContainsRune(arg, 0) {
			return fmt.Errorf("%s[%d] has a NUL byte, which no program can be given", what, i)
		}
	}
	return nil
}

// ReloadFiles returns the absolute paths of the files that make the process
// reload, for one shard of it.
func ReloadFiles(p *spec.AssignedProcess, id spec.InstanceID, ports map[string]int, host *Host) ([]string, error) {
	if p.Process.Reload == nil || len(p.Process.Reload.Files) == 0 {
		return nil, nil
	}
	x := expander{host: host, run: spec.Runtime{
		ShardIndex: id.Shard, ShardCount: p.Process.Shards,
		NodeName: host.Node, NodeLabels: host.Labels, Ports: ports,
	}}
	r := x.reload(&p.Process, x.dir(&p.Process))
	if x.err != nil {
		return nil, fmt.Errorf("find reload files of %s: %w", id, x.err)
	}
	paths := make([]string, len(r.Files))
	for i, f := range r.Files {
		paths[i] = f.Text()
	}
	return paths, nil
}

// reloadHash joins which files are wanted with what is in them.
func reloadHash(p *spec.Process, digest string) string {
	sum := sha256.Sum256([]byte(spec.ReloadInput(p) + "\n" + digest))
	return hex.EncodeToString(sum[:16])
}

// expander fills templates in and keeps the first error.
type expander struct {
	host *Host
	run  spec.Runtime
	err  error
}

func (x *expander) text(t spec.Template, what string) string {
	if t.IsLiteral() {
		return t.Text()
	}
	s, err := x.host.Expand(t, x.run)
	if err != nil && x.err == nil {
		x.err = fmt.Errorf("fill in %s: %w", what, err)
	}
	return s
}

func (x *expander) argv(command []spec.Template, what string) []string {
	argv := make([]string, len(command))
	for i, t := range command {
		argv[i] = x.text(t, what+"["+strconv.Itoa(i)+"]")
	}
	return argv
}

// hooks returns what runs around the process's life; nil if nothing does.
func (x *expander) hooks(p *spec.Process) []spec.LaunchHook {
	var out []spec.LaunchHook
	for i := range p.Hooks {
		h := &p.Hooks[i]
		if len(h.Command) == 0 {
			x.err = cmp.Or(x.err, fmt.Errorf("hook.%s.command is empty", h.When))
			continue
		}
		out = append(out, spec.LaunchHook{When: h.When, Argv: x.argv(h.Command, "hook."+string(h.When)+".command"), Timeout: h.Timeout})
	}
	return out
}

func (x *expander) dir(p *spec.Process) string {
	if p.Dir == "" {
		return "/"
	}
	return x.text(p.Dir, "dir")
}

// reload returns the block with absolute paths that are literal.
func (x *expander) reload(p *spec.Process, dir string) *spec.Reload {
	if p.Reload == nil {
		return nil
	}
	r := *p.Reload
	r.Files = make([]spec.Template, len(p.Reload.Files))
	for i, t := range p.Reload.Files {
		path := x.text(t, "reload.files["+strconv.Itoa(i)+"]")
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		r.Files[i] = spec.Literal(filepath.Clean(path))
	}
	return &r
}

// env builds the whole environment, sorted: the base, over it what the
// process sets, over that what meshrun promises.
func (x *expander) env(p *spec.Process, id spec.InstanceID, given Given, account Account) []string {
	env := baseEnv(x.host.Environ, account)
	for name, t := range p.Env {
		env[name] = x.text(t, "env."+name)
	}
	env["MESHRUN_JOB"] = id.Job
	env["MESHRUN_PROCESS"] = id.Process
	env["MESHRUN_SHARD"] = strconv.Itoa(id.Shard)
	env["MESHRUN_SHARDS"] = strconv.Itoa(p.Shards)
	env["MESHRUN_NODE"] = x.host.Node
	if p.Exclusive {
		env["MESHRUN_TOKEN"] = strconv.FormatUint(given.Token, 10)
	}
	for name, port := range given.Ports {
		env["MESHRUN_PORT_"+envName(name)] = strconv.Itoa(port)
	}
	out := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out
}

// defaultPath is the search path where the agent has none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// baseEnv is what every process gets without asking: PATH and what concerns
// language, time and temporary files (LANG, LC_*, TZ, TMPDIR) from the agent,
// and HOME, USER, LOGNAME and SHELL of the user that it runs as. Nothing else
// of the agent's environment reaches it.
func baseEnv(environ []string, account Account) map[string]string {
	env := map[string]string{"PATH": defaultPath}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case name == "PATH", name == "LANG", name == "TZ", name == "TMPDIR", strings.HasPrefix(name, "LC_"):
			env[name] = value
		}
	}
	for name, value := range map[string]string{
		"HOME": account.Home, "USER": account.Name, "LOGNAME": account.Name, "SHELL": account.Shell,
	} {
		if value != "" {
			env[name] = value
		}
	}
	return env
}

// envName turns a port's name into a part of a variable's name.
func envName(name string) string {
	return strings.Map(func(r rune) rune {
		if (r >= 'A' && r <= 'Z') || (r >= '0' && r <= '9') {
			return r
		}
		if r >= 'a' && r <= 'z' {
			return r - 'a' + 'A'
		}
		return '_'
	}, name)
}

// userName returns the user of "user" or "user:group".
func userName(s string) string {
	name, _, _ := strings.Cut(s, ":")
	return name
}
