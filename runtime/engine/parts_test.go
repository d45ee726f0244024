package engine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// eventually waits, driven by the engine's changes, until ok holds.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.After(time.Minute)
	for {
		r.dog.mu.Lock()
		done, changed := ok(), r.dog.changed
		r.dog.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("timed out: %s", what)
		}
	}
}

// The kernel's file events cannot be waited for in a bubble: real time here.
func TestReloadFilesSendTheReloadSignal(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t)
	r.start()
	defer func() { r.close() }()
	web := proc("web", 0)
	web.Process.Dir = spec.Literal(dir)
	web.Process.Reload = &spec.Reload{Signal: "SIGHUP", Files: []spec.Template{"conf/app.conf", spec.Literal(filepath.Join(dir, "tls.pem"))}}
	r.assign("shop", web, proc("db", 0))
	r.eventually("the start", func() bool { return r.dog.starts[id("shop/web/0")] == 1 })
	if files := r.dog.launches[id("shop/web/0")].Reload.Files; files[0].Text() != filepath.Join(dir, "conf/app.conf") {
		t.Errorf("files %q", files)
	}
	reloads := 0
	step := func(what string, change func() error) {
		t.Helper()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		reloads++
		r.eventually(what, func() bool { return r.dog.reloads[id("shop/web/0")] == reloads })
	}
	write := func(path, text string) error { return os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600) }
	rename := func(from, to string) error { return os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)) }
	// All at once: what is read while it is written is a change as well.
	step("a file that appears with its directory", func() error {
		return errors.Join(os.Mkdir(filepath.Join(dir, "new"), 0o700), write("new/app.conf", "a"), rename("new", "conf"))
	})
	step("an editor's rename", func() error {
		return errors.Join(write("conf/.app.conf.swp", "b"), rename("conf/.app.conf.swp", "conf/app.conf"))
	})
	step("another file", func() error { return errors.Join(write("tls.pem.new", "x"), rename("tls.pem.new", "tls.pem")) })
	step("a removed directory", func() error { return os.RemoveAll(filepath.Join(dir, "conf")) })
	if n := r.dog.starts[id("shop/web/0")] + r.dog.reloads[id("shop/db/0")]; n != 1 {
		t.Errorf("something else was touched: %d", n)
	}
}

func TestFilesAreReadOnceAndWithinBounds(t *testing.T) {
	dir := t.TempDir()
	small, large, special := filepath.Join(dir, "small"), filepath.Join(dir, "large"), filepath.Join(dir, "dir")
	if err := errors.Join(os.WriteFile(small, []byte("x"), 0o600), os.Mkdir(special, 0o700),
		os.WriteFile(large, nil, 0o600), os.Truncate(large, MaxReloadFile+1)); err != nil {
		t.Fatal(err)
	}
	for path, prefix := range map[string]string{
		small: "2d711642", large: "large 1048577 ", special: "not a file", filepath.Join(dir, "gone"): "missing",
	} {
		if got := digestFile(path); !strings.HasPrefix(got, prefix) {
			t.Errorf("%s: %q, want %q…", path, got, prefix)
		}
	}
}

func TestPortsAreChosenOnceAndNeverTwice(t *testing.T) {
	listening := map[int]bool{}
	book := newPortBook(func(p int) bool { return !listening[p] })
	wanted := []spec.Port{{Name: "http"}, {Name: "admin", Static: 8080}}
	owner := map[int]string{}
	for i := range 500 {
		id := spec.InstanceID{Job: "a", Process: "p", Shard: i}
		ports, err := book.assign(id, wanted)
		if err != nil {
			t.Fatal(err)
		}
		p := ports["http"]
		if owner[p] != "" || p < FirstPort || p > LastPort || ports["admin"] != 8080 {
			t.Fatalf("%s got %v; %q has that port", id, ports, owner[p])
		}
		owner[p] = id.String()
		listening[p] = true // its process listens now: that is no reason to move
		if again, _ := book.assign(id, wanted); again["http"] != p {
			t.Fatalf("%s moved from %d to %d", id, p, again["http"])
		}
	}
	first := spec.InstanceID{Job: "a", Process: "p"}
	before := book.byID[first]["http"]
	next := newPortBook(func(int) bool { return false })
	next.adopt([]spec.Instance{{ID: first, Ports: map[string]int{"http": before}}})
	if ports, err := next.assign(first, wanted); err != nil || ports["http"] != before {
		t.Errorf("a restarted agent gave %v, %v; it had %d", ports, err, before)
	}
	if _, err := next.assign(spec.InstanceID{Job: "b", Process: "p"}, wanted); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("no port is free, and yet: %v", err)
	}
	next.release(first)
	next.free = func(int) bool { return true }
	if ports, _ := next.assign(first, wanted); ports["http"] != before {
		t.Errorf("the same instance on an empty node got %v, then %v", before, ports)
	}
}

func TestBindable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip("no network here")
	}
	port := l.Addr().(*net.TCPAddr).Port
	if bindable(port) {
		t.Errorf("port %d is taken and seems free", port)
	}
	l.Close()
}

func TestReportsOfManyInstancesFitTheStore(t *testing.T) {
	seen := spec.Observed{Job: "shop", Node: "n1"}
	for i := range 1200 {
		seen.Instances = append(seen.Instances, spec.Instance{
			ID: spec.InstanceID{Job: "shop", Process: "ingest", Shard: i}, Node: "n1", Phase: spec.PhaseRunning, Version: 3,
			Hash: strings.Repeat("h", 32), ReloadHash: strings.Repeat("r", 32), BootID: strings.Repeat("b", 36),
			PID: 100_000 + i, StartTicks: 123456789, Started: time.Unix(1, 123456789), ReadyAt: time.Unix(2, 123456789), Generation: 1,
		})
	}
	for n, indented := range map[int]bool{3: true, 1200: false} {
		part := seen
		part.Instances = seen.Instances[:n:n]
		b, err := encode(&part)
		if err != nil {
			t.Fatal(err)
		}
		op := state.Op{Kind: state.OpSet, Key: state.ObservedKey("n1", "shop"), Value: b}
		if err := state.CheckOps([]state.Op{op}); err != nil {
			t.Error(err)
		}
		if got := strings.Contains(string(b), "\n"); got != indented {
			t.Errorf("%d instances: indented is %v", n, got)
		}
	}
}

func TestAccounts(t *testing.T) {
	a := newAccounts([]string{"HOME=/h", "USER=me"})
	if own, err := a.lookup(""); err != nil || own.Home != "/h" || own.Name != "me" {
		t.Errorf("own account: %+v, %v", own, err)
	}
	for _, name := range []string{"root", "0"} {
		if root, err := a.lookup(name); err != nil || root.Name != "root" || root.Home == "" {
			t.Errorf("%s: %+v, %v", name, root, err)
		}
	}
	_, err := a.lookup("no-such-user")
	if err == nil || !strings.Contains(err.Error(), "create it") {
		t.Errorf("an unknown user: %v", err)
	}
	if got := fmt.Sprint(userName("a:b"), userName("a"), userName("")); got != "aa" {
		t.Errorf("userName: %q", got)
	}
}

func TestWhatIsDeclaredAfterItHadToWaitIsNeverGone(t *testing.T) {
	id := spec.InstanceID{Job: "j", Process: "p"}
	v := newView("n", &locks{})
	v.reset(nil, 0)
	phase := func() spec.Phase {
		list, _, err := v.wait(t.Context(), 0)
		if err != nil || len(list) != 1 {
			t.Fatalf("seen: %v, %v", list, err)
		}
		return list[0].Phase
	}
	v.setPending(map[spec.InstanceID]Pending{id: {Reason: "waits for its shard's lock"}}, nil)
	if got := phase(); got != spec.PhasePending {
		t.Errorf("while it waits it is %s", got)
	}
	v.setPending(nil, []Wanted{{ID: id, Launch: &spec.Launch{ID: id}}})
	if got := phase(); got != spec.PhasePending {
		t.Errorf("declared, and not told of yet, it is %s", got)
	}
	v.apply(&spec.Event{Type: spec.EventStarted, Instance: &spec.Instance{ID: id, Phase: spec.PhaseRunning}})
	if got := phase(); got != spec.PhaseRunning {
		t.Errorf("started, it is %s", got)
	}
}
