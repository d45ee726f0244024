package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/agent"
	"github.com/synergymesh/meshrun/spec"
)

func TestFilesAreCheckedAndFormattedWithoutAnAgent(t *testing.T) {
	ugly := jobFile(t, "job \"web\" {\nprocess \"app\" {\ncommand = [\"sleep\",\"1\"]\n}\n}\n")
	if _, stderr, code := meshrun(t, nil, "validate", ugly); code != 0 || !strings.Contains(stderr, "1 file, 1 job, 1 process") {
		t.Errorf("validate: exit %d, %s", code, stderr)
	}
	if stdout, _, code := meshrun(t, nil, "validate", "-json", jobFile(t, "job {")); code != 1 || !strings.Contains(stdout, `"severity": "error"`) {
		t.Errorf("validate -json: exit %d, %s", code, stdout)
	}
	if stdout, _, code := meshrun(t, nil, "fmt", "-check", "-diff", ugly); code != 1 || !strings.Contains(stdout, "+  process") {
		t.Errorf("fmt -check -diff: exit %d\n%s", code, stdout)
	}
	if err := os.Chmod(ugly, 0o640); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code := meshrun(t, nil, "fmt", filepath.Dir(ugly)); code != 0 || stdout != ugly+"\n" {
		t.Errorf("fmt: exit %d, %s%s", code, stdout, stderr)
	}
	if info, err := os.Stat(ugly); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("fmt changed the mode: %v %v", info.Mode(), err)
	}
	if stdout, _, code := meshrun(t, nil, "fmt", "-check", ugly); code != 0 || stdout != "" {
		t.Errorf("fmt again: exit %d, %s", code, stdout)
	}
	if _, stderr, code := meshrun(t, nil, "fmt", jobFile(t, "job {{{")); code != 1 || !strings.Contains(stderr, "Error") {
		t.Errorf("fmt of a broken file: exit %d, %s", code, stderr)
	}
	if stdout, _, code := meshrun(t, nil, "schema"); code != 0 || !json.Valid([]byte(stdout)) {
		t.Errorf("schema: exit %d", code)
	}
	if stdout, _, code := meshrun(t, nil, "version", "-json"); code != 0 || !json.Valid([]byte(stdout)) {
		t.Errorf("version: exit %d", code)
	}
}

func TestTheDataDirectoryIsFoundInOrder(t *testing.T) {
	env := func(m map[string]string) func(string) string { return func(k string) string { return m[k] } }
	for _, c := range []struct {
		uid  int
		env  map[string]string
		want string
	}{
		{0, map[string]string{"HOME": "/root"}, "/var/lib/meshrun"},
		{1000, map[string]string{"HOME": "/home/a", "XDG_STATE_HOME": "/s"}, "/s/meshrun"},
		{1000, map[string]string{"HOME": "/home/a", "XDG_STATE_HOME": "relative"}, "/home/a/.local/state/meshrun"},
		{1000, nil, ""},
	} {
		if got := usualDataDir(c.uid, env(c.env)); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	term, _, _ := testTerm(map[string]string{"MESHRUN_DATA_DIR": "/d", "MESHRUN_ADDR": "/other/agent.sock"})
	for dir, want := range map[string]string{"": "/other/agent.sock", "/mine": "/mine/agent.sock"} {
		client, err := (&place{term: term, dir: dir}).client()
		if err != nil || client.Address() != want {
			t.Errorf("-data-dir %q: %s, %v", dir, client.Address(), err)
		}
	}
}

func TestCompletionKnowsTheNames(t *testing.T) {
	for line, want := range map[string]string{
		"logs ":             "old web",
		"logs w":            "web",
		"logs web/":         "web/api web/down web/late web/setup web/work",
		"restart web/api/":  "web/api/0 web/api/1 web/api/2 web/api/3",
		"history web/":      "",
		"promote x web/w":   "web/work",
		"pause web/work/":   "",
		"signal SIGUSR":     "SIGUSR1 SIGUSR2",
		"signal HUP web/la": "web/late",
	} {
		b := node()
		jobs, _ := b.JobsFunc(t.Context())
		b.JobsFunc = func(context.Context) ([]spec.JobVersion, error) {
			return append([]spec.JobVersion{{Job: spec.Job{Name: "old"}}}, jobs...), nil
		}
		words := strings.Split(line, " ")
		stdout, _, _ := meshrun(t, b, append([]string{"__completeNoDesc"}, words...)...)
		got := strings.Fields(strings.Split(stdout, ":")[0])
		if strings.Join(got, " ") != want && !strings.HasPrefix(line, "signal S") {
			t.Errorf("%q: %v, want %s", line, got, want)
		}
	}
	if stdout, _, code := meshrun(t, nil, "completion", "bash"); code != 0 || !strings.Contains(stdout, "__complete") {
		t.Errorf("completion bash: exit %d", code)
	}
}

func TestTheAgentMeansTheSameFromEverywhere(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "agent.hcl")
	write := func(text string) {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("node = \"alpha\"\ndata_dir = \"data\"\njobs = [\"jobs\", \"/abs\"]\nlog_level = \"warn\"\nlabels = { disk = \"ssd\" }\n")
	term, _, _ := testTerm(nil)
	c := &runAgent{term: term, place: place{term: term}, config: config}
	cfg, err := c.resolve()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Node != "alpha" || cfg.DataDir != filepath.Join(dir, "data") || cfg.Labels["disk"] != "ssd" ||
		!reflect.DeepEqual(cfg.Jobs, []string{filepath.Join(dir, "jobs"), "/abs"}) {
		t.Errorf("%+v", cfg)
	}
	want := []string{"agent", "-data-dir", filepath.Join(dir, "data"), "-config", config, "-log-level", "warn"}
	if got := c.commandLine(&cfg); !reflect.DeepEqual(got, want) {
		t.Errorf("command line %q", got)
	}
	c = &runAgent{term: term, place: place{term: term, dir: "/d"}, config: config, node: "beta", jobs: []string{"/j"}, fromUp: true}
	if cfg, err = c.resolve(); err != nil || cfg.Node != "beta" || cfg.DataDir != "/d" || !reflect.DeepEqual(cfg.Jobs, []string{"/j"}) {
		t.Errorf("options go before the file: %+v, %v", cfg, err)
	}
	if got := fmt.Sprint(c.commandLine(&cfg)); got != fmt.Sprintf("[agent -data-dir /d -config %s -node beta -jobs /j -log-level warn -from-up]", config) {
		t.Errorf("command line %s", got)
	}
	write("nodes = \"alpha\"\n")
	if _, err := (&runAgent{term: term, place: place{term: term, dir: "/d"}, config: config}).resolve(); err == nil || !strings.Contains(err.Error(), "nodes") || !strings.Contains(err.Error(), config+":1") {
		t.Errorf("a misspelt name: %v", err)
	}
}

func TestAnAgentJoinsAClusterOnlyIfItIsTold(t *testing.T) {
	term, _, _ := testTerm(nil)
	config := filepath.Join(t.TempDir(), "agent.hcl")
	resolve := func(text, flag string) (*agent.Cluster, []string, error) {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &runAgent{term: term, place: place{term: term, dir: "/d"}, config: config, consul: flag}
		cfg, err := c.resolve()
		return cfg.Cluster, c.commandLine(&cfg), err
	}
	if cluster, _, err := resolve("", ""); err != nil || cluster != nil {
		t.Errorf("alone: %+v, %v", cluster, err)
	}
	cluster, _, err := resolve("consul {\n  address = \"10.0.0.1:8500\"\n  token = \"t\"\n  ca_file = \"ca.pem\"\n  prefix = \"teams/a\"\n  fence = \"8s\"\n}\n", "")
	want := agent.Cluster{Address: "10.0.0.1:8500", Token: "t", CAFile: filepath.Join(filepath.Dir(config), "ca.pem"), Prefix: "teams/a", Fence: 8 * time.Second}
	if err != nil || cluster == nil || *cluster != want {
		t.Errorf("%+v, %v", cluster, err)
	}
	cluster, line, err := resolve("consul {}\n", "127.0.0.1:8501")
	if err != nil || cluster == nil || cluster.Address != "127.0.0.1:8501" || !slices.Contains(line, "127.0.0.1:8501") {
		t.Errorf("the option goes before the file: %+v, %q, %v", cluster, line, err)
	}
	for text, want := range map[string]string{
		"consul { fence = \"1s\" }\n":   "5s",
		"consul { fence = \"soon\" }\n": "duration",
		"consul { adress = \"x\" }\n":   "adress",
		"weight = -1\n":                 "negative",
		"cpu = -1\n":                    "negative",
		"memory = \"8\"\n":              "256MiB",
	} {
		if _, _, err := resolve(text, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestTheWatchdogIsToldItsAgent(t *testing.T) {
	term, _, _ := testTerm(nil)
	var got agent.WatchdogConfig
	c := &runWatchdog{term: term, place: place{term: term, dir: "/d"}, agent: strings.Fields("/bin/meshrun agent -log-level error"),
		run: func(_ context.Context, cfg agent.WatchdogConfig) error { got = cfg; return nil }}
	if err := c.Run(t.Context()); err != nil || got.DataDir != "/d" || len(got.Agent) != 4 || got.Logger.GetLevel().String() != "error" {
		t.Errorf("%+v, %v", got, err)
	}
}
