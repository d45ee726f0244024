package engine

import (
	"strconv"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

func TestALaunchNamesWhatNoMessageMayQuote(t *testing.T) {
	r := newRig(t)
	p := proc("web", 1)
	p.Process.Command, p.Process.Dir = []spec.Template{"/opt//s1/run", "open", "s2"}, "/srv/s1"
	p.Process.Env = map[string]spec.Template{"PATH": "/s3:/bin", "TOKEN": "quoted nowhere"}
	p.Process.Hooks = []spec.Hook{{When: spec.HookBeforeStart, Command: []spec.Template{"s4"}}}
	host := Host{Node: "n1", Account: r.cfg.Host.Account, Expand: r.cfg.Host.Expand}
	if l, err := Launch(&p, id("shop/web/0"), Given{}, &host); err != nil || l.Secrets != nil {
		t.Errorf("nothing is sensitive: %q, %v", l.Secrets, err)
	}
	p.Process.Sensitive = []string{"command[0]", "command[2]", "dir", "env.PATH", "env.TOKEN", "hook.before_start.command[0]"}
	l, err := Launch(&p, id("shop/web/0"), Given{}, &host)
	if err != nil {
		t.Fatal(err)
	}
	want(t, strings.Join(l.Secrets, " "), "/opt//s1/run /opt/s1/run /srv/s1 /bin /s3 s2 s4")
	want(t, spec.Conceal("stat /opt/s1/run: no such file", l.Secrets), "stat (sensitive): no such file")
}

func TestEnvironmentIsMinimalAndComplete(t *testing.T) {
	r := newRig(t)
	p := proc("web", 2)
	p.Process.Shards = 5
	p.Process.Exclusive = true
	p.Process.Env = map[string]spec.Template{"HOME": "/srv", "DATA": "$${x}", "MESHRUN_JOB": "lie"}
	host := Host{Node: "n1", Environ: []string{"PATH=/bin", "SECRET=1", "LC_ALL=C"}, Account: r.cfg.Host.Account, Expand: r.cfg.Host.Expand}
	l, err := Launch(&p, id("shop/web/2"), Given{Ports: map[string]int{"my-http": 8080}, Token: 42}, &host)
	if err != nil {
		t.Fatal(err)
	}
	want(t, strings.Join(l.Env, "\n"), `DATA=${x}
HOME=/srv
LC_ALL=C
LOGNAME=u
MESHRUN_JOB=shop
MESHRUN_NODE=n1
MESHRUN_PORT_MY_HTTP=8080
MESHRUN_PROCESS=web
MESHRUN_SHARD=2
MESHRUN_SHARDS=5
MESHRUN_TOKEN=42
PATH=/bin
USER=u`)
	want(t, l.Dir, "/")
	for name, spoil := range map[string]func(*spec.Process){
		"command[0]":      func(p *spec.Process) { p.Command = []spec.Template{""} },
		"command[1]":      func(p *spec.Process) { p.Command = []spec.Template{"x", "a\x00b"} },
		"absolute":        func(p *spec.Process) { p.Dir = "data" },
		"env.A has a NUL": func(p *spec.Process) { p.Env = map[string]spec.Template{"A": "secret\x00"} },
		"hook.after_stop.command[0] is empty": func(p *spec.Process) {
			p.Hooks = []spec.Hook{{When: spec.HookAfterStop, Command: []spec.Template{""}}}
		},
		"hook.before_start.command[1] has a NUL": func(p *spec.Process) {
			p.Hooks = []spec.Hook{{When: spec.HookBeforeStart, Command: []spec.Template{"x", "secret\x00"}}}
		},
	} {
		bad := p
		spoil(&bad.Process)
		if _, err := Launch(&bad, id("shop/web/2"), Given{}, &host); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	more := p
	more.Process.Shards = 6
	more.Process.Resources = &spec.Resources{Memory: 64 << 20}
	m, err := Launch(&more, id("shop/web/2"), Given{Token: 43}, &host)
	if err != nil || m.Hash != l.Hash {
		t.Errorf("another shard count, token and limits restart the process: %v", err)
	}
	if m.Resources == nil || *m.Resources != *more.Process.Resources {
		t.Errorf("its limits are %v", m.Resources)
	}
}

func TestHooksAreFilledInAndRestartNothing(t *testing.T) {
	r := newRig(t)
	p := proc("web", 2)
	host := Host{Node: "n1", Account: r.cfg.Host.Account, Expand: func(t spec.Template, run spec.Runtime) (string, error) {
		return strings.ReplaceAll(string(t), "${shard.index}", strconv.Itoa(run.ShardIndex)), nil
	}}
	bare, err := Launch(&p, id("shop/web/2"), Given{}, &host)
	if err != nil || bare.Hooks != nil {
		t.Fatalf("hooks %v, %v", bare.Hooks, err)
	}
	h := spec.DefaultHook(spec.HookBeforeStart)
	h.Command = []spec.Template{"./warm-up", "$${x}", "shard ${shard.index}"}
	p.Process.Hooks = []spec.Hook{h}
	l, err := Launch(&p, id("shop/web/2"), Given{}, &host)
	if err != nil || len(l.Hooks) != 1 {
		t.Fatalf("hooks %v, %v", l.Hooks, err)
	}
	want(t, strings.Join(l.Hooks[0].Argv, "\n"), "./warm-up\n${x}\nshard 2")
	want(t, l.Hooks[0].Timeout.String(), "30s")
	if l.Hash != bare.Hash {
		t.Error("a hook restarts the process")
	}
}
