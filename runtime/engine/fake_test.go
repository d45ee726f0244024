package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

var (
	errAway    = errors.New("the watchdog is away")
	errRefused = errors.New("refused")
)

// fakeWatchdog keeps a table and numbers its events, as the real one does; its
// processes start at once.
type fakeWatchdog struct {
	mu       sync.Mutex // guards all below
	table    map[spec.InstanceID]spec.Instance
	launches map[spec.InstanceID]spec.Launch
	events   []spec.Event
	changed  chan struct{}
	away     bool
	// calls holds the instances of every Declare: "+id" and "-id".
	calls [][]string
	// starts counts the starts of each instance, reloads its reload signals.
	starts, reloads map[spec.InstanceID]int
	// refuses are the instances that no batch may hold.
	refuses map[spec.InstanceID]bool
	// slow keeps removed instances until finish.
	slow bool
	// mute holds events back; answer, if set, is what Declare says after it has
	// done what it was asked.
	mute   bool
	answer func() error
	// listens is what FindOutput finds, open how many outputs are held.
	listens atomic.Bool
	open    atomic.Int32
}

func newFakeWatchdog() *fakeWatchdog {
	return &fakeWatchdog{
		table: map[spec.InstanceID]spec.Instance{}, launches: map[spec.InstanceID]spec.Launch{},
		changed: make(chan struct{}), starts: map[spec.InstanceID]int{}, reloads: map[spec.InstanceID]int{},
	}
}

var _ Watchdog = (*fakeWatchdog)(nil)

func (w *fakeWatchdog) Table(context.Context) (spec.Table, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		return spec.Table{}, errAway
	}
	return spec.Table{Seq: uint64(len(w.events)), Instances: slices.Collect(maps.Values(w.table))}, nil
}

func (w *fakeWatchdog) emit(t spec.EventType, inst spec.Instance) {
	w.events = append(w.events, spec.Event{Seq: uint64(len(w.events) + 1), Type: t, Instance: &inst})
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *fakeWatchdog) Declare(_ context.Context, set []spec.Launch, remove []spec.InstanceID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		return errAway
	}
	for _, l := range set {
		if w.refuses[l.ID] {
			return errRefused
		}
	}
	var call []string
	for _, l := range set {
		call = append(call, "+"+l.ID.String())
		old, known := w.table[l.ID]
		inst := spec.Instance{
			ID: l.ID, Phase: spec.PhaseRunning, Version: l.Version, Hash: l.Hash, Epoch: l.Epoch,
			ReloadHash: l.ReloadHash, Ports: l.Ports, Generation: old.Generation, Restarts: old.Restarts,
			PID: old.PID, StartTicks: old.StartTicks, Started: old.Started, Critical: l.Critical,
		}
		if !known || old.Hash != l.Hash || old.Epoch != l.Epoch || w.launches[l.ID].Lease != l.Lease || old.Phase == spec.PhaseStopping {
			inst.Generation++
			inst.PID, inst.StartTicks, inst.Started = 1<<23, inst.Generation, time.Now()
			w.starts[l.ID]++
		} else {
			inst.Phase = old.Phase // what has failed stays so, however often it is declared
			if old.ReloadHash != l.ReloadHash {
				w.reloads[l.ID]++
			}
		}
		w.table[l.ID], w.launches[l.ID] = inst, l
		w.emit(spec.EventStarted, inst)
	}
	for _, id := range remove {
		call = append(call, "-"+id.String())
		inst, ok := w.table[id]
		if !ok {
			continue
		}
		inst.Phase = spec.PhaseStopping
		w.table[id] = inst
		w.emit(spec.EventStopping, inst)
		if !w.slow {
			w.gone(id)
		}
	}
	w.calls = append(w.calls, call)
	if w.answer != nil {
		return w.answer()
	}
	return nil
}

// gone ends a removed instance. The caller holds w.mu.
func (w *fakeWatchdog) gone(id spec.InstanceID) {
	inst := w.table[id]
	delete(w.table, id)
	w.emit(spec.EventRemoved, inst)
}

func (w *fakeWatchdog) Refused(err error) bool { return errors.Is(err, errRefused) }

func (w *fakeWatchdog) HoldOutput(spec.InstanceID) (io.Closer, error) {
	w.open.Add(1)
	return closer{&w.open}, nil
}

func (w *fakeWatchdog) FindOutput(context.Context, spec.InstanceID, time.Time, string) (string, bool, error) {
	return "listening", w.listens.Load(), nil
}

func (w *fakeWatchdog) Prepare(*spec.Launch) (string, string, *syscall.Credential, error) {
	return "", "", nil, errors.New("no command is run here")
}

// closer counts what is open.
type closer struct{ open *atomic.Int32 }

func (c closer) Close() error { c.open.Add(-1); return nil }

// fakeAgent has a session if it is given one, and keeps what it is told.
type fakeAgent struct {
	session func() string
	events  chan spec.Event
	problem string
}

func (a *fakeAgent) Session() string {
	if a.session == nil {
		return ""
	}
	return a.session()
}

func (a *fakeAgent) Emit(ev spec.Event) { a.events <- ev }

func (a *fakeAgent) Problem(text string) { a.problem = text }

func (w *fakeWatchdog) Events(ctx context.Context, after uint64, fn func(spec.Event) error) error {
	for {
		w.mu.Lock()
		if w.away {
			w.mu.Unlock()
			return errAway
		}
		batch, changed := slices.Clone(w.events[after:]), w.changed
		if w.mute {
			batch = nil
		}
		w.mu.Unlock()
		for _, ev := range batch {
			if err := fn(ev); err != nil {
				return err
			}
			after = ev.Seq
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// setAway makes the watchdog unreachable, or reachable again.
func (w *fakeWatchdog) setAway(away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = away
	close(w.changed)
	w.changed = make(chan struct{})
}

// takeCalls returns the Declare calls since the last takeCalls.
func (w *fakeWatchdog) takeCalls() [][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	return calls
}

// rig is an engine with all around it.
type rig struct {
	t     *testing.T
	store *local.Store
	dog   *fakeWatchdog
	agent *fakeAgent
	*Engine
	cfg  Config
	stop func()
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, store: local.OpenMemory(local.Options{}), dog: newFakeWatchdog(), agent: &fakeAgent{events: make(chan spec.Event, 1000)}}
	r.cfg = Config{
		Store: r.store, Watchdog: r.dog, Agent: r.agent, Logger: hclog.NewNullLogger(),
		Host: Host{Node: "n1",
			Environ: []string{"PATH=/bin", "SECRET=1"}, PortFree: func(int) bool { return true },
			Account: func(name string) (Account, error) {
				if name == "nobody-here" {
					return Account{}, errors.New("unknown user nobody-here")
				}
				return Account{Name: "u" + name, Home: "/home/u"}, nil
			},
			Expand: func(t spec.Template, run spec.Runtime) (string, error) {
				if strings.Contains(string(t), "bad") {
					return "", errors.New("no such thing as bad")
				}
				b, err := json.Marshal(run.Ports)
				return strings.ReplaceAll(string(t), "${ports}", string(b)), err
			}},
	}
	return r
}

// start runs a new engine, as a restarted agent would.
func (r *rig) start() {
	r.Engine = New(r.cfg)
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	}
}

func (r *rig) close() {
	r.stop()
	if err := r.store.Close(); err != nil {
		r.t.Error(err)
	}
}

// assign writes a job's assignment; no processes remove it.
func (r *rig) assign(job string, processes ...spec.AssignedProcess) {
	r.t.Helper()
	key := state.AssignmentKey("n1", job)
	op := state.Op{Kind: state.OpDelete, Key: key}
	if len(processes) > 0 {
		b, err := json.Marshal(spec.Assignment{Job: job, Node: "n1", Processes: processes})
		if err != nil {
			r.t.Fatal(err)
		}
		op = state.Op{Kind: state.OpSet, Key: key, Value: b}
	}
	if _, err := r.store.Txn(r.t.Context(), op); err != nil {
		r.t.Fatal(err)
	}
}

// observed returns what the store says of a job: "id phase", and the reason.
func (r *rig) observed(job string) (out []string) {
	r.t.Helper()
	e, err := r.store.Get(r.t.Context(), state.ObservedKey("n1", job))
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	var seen spec.Observed
	if err != nil || json.Unmarshal(e.Value, &seen) != nil {
		r.t.Fatal(err)
	}
	for _, i := range seen.Instances {
		out = append(out, strings.TrimSpace(i.ID.String()+" "+string(i.Phase)+" "+i.Reason))
	}
	return out
}

// proc returns an assigned process with the given shards.
func proc(name string, shards ...int) spec.AssignedProcess {
	return spec.AssignedProcess{
		Version: 1, Shards: shards,
		Process: spec.Process{Name: name, Command: []spec.Template{spec.Template(name)}, Shards: len(shards)},
	}
}

func id(s string) spec.InstanceID {
	parsed, err := spec.ParseInstanceID(s)
	if err != nil {
		panic(err)
	}
	return parsed
}
