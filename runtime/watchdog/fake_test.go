package watchdog

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/spec"
)

// fakeKernel is a kernel of which the test is the hardware. Inside a synctest
// bubble everything it is asked happens at once.
type fakeKernel struct {
	t      *testing.T
	clock  *fakeClock
	fence  *fence // of the newest loop on it
	events chan []kernelEvent

	mu       sync.Mutex // guards all below, where the fence's goroutine comes
	next     uint64
	live     map[uint64]*fakeProcess
	byID     map[spec.InstanceID]*fakeProcess // the newest of each
	messages map[spec.InstanceID][]notification
	sockets  map[spec.InstanceID]uint64
	startErr map[spec.InstanceID]error
	findErr  error // what Find says; nil: it can tell
	seen     []foundProcess
	// onSignal decides whether a process ends by a signal; nil: it does.
	onSignal func(p *fakeProcess, sig syscall.Signal) bool
	// onStart, if set, is called before each start.
	onStart func(l *spec.Launch)
	// onLimit, if set, says what comes of setting limits.
	onLimit   func(l *spec.Launch, p *process) error
	untidy    int // how often Tidy still finds somebody
	reclaimed map[string]int
	signals   []string
	ran       []string // what was executed, and the exit that after_stop is told
	dropped   chan struct{}
	lost      map[spec.InstanceID]uint64
	boot      string
}

type fakeProcess struct {
	*process
	id      spec.InstanceID
	started time.Time
	over    time.Time // when it ended
	exit    spec.Exit
	mute    bool // dead, and its exit is not readable
}

func newFakeKernel(t *testing.T) *fakeKernel {
	return &fakeKernel{t: t, clock: newFakeClock(), events: make(chan []kernelEvent, 1024), live: map[uint64]*fakeProcess{},
		byID: map[spec.InstanceID]*fakeProcess{}, messages: map[spec.InstanceID][]notification{},
		sockets: map[spec.InstanceID]uint64{}, startErr: map[spec.InstanceID]error{},
		boot: "boot", dropped: make(chan struct{}, 1), lost: map[spec.InstanceID]uint64{}}
}

var _ kernel = (*fakeKernel)(nil)

func (k *fakeKernel) Events() <-chan []kernelEvent              { return k.events }
func (k *fakeKernel) BootID() string                            { return k.boot }
func (k *fakeKernel) Dropped() <-chan struct{}                  { return k.dropped }
func (k *fakeKernel) Release(id spec.InstanceID)                { delete(k.sockets, id) }
func (k *fakeKernel) EndOutput(spec.InstanceID)                 {}
func (k *fakeKernel) SetLogs(spec.InstanceID, spec.Logs)        {}
func (k *fakeKernel) Scan([]spec.InstanceID) []foundProcess     { return k.seen }
func (k *fakeKernel) Kill(*process) error                       { return nil }
func (k *fakeKernel) Orphans(func(int) (uint64, bool)) []uint64 { return nil }
func (k *fakeKernel) Reclaim() map[string]int                   { return k.reclaimed }
func (k *fakeKernel) TakeDropped() map[spec.InstanceID]uint64 {
	lost := k.lost
	k.lost = map[spec.InstanceID]uint64{}
	return lost
}

func (k *fakeKernel) Hold(l *spec.Launch, _ bool) (uint64, error) {
	if l.Watchdog == nil && (l.Ready == nil || !l.Ready.Notify) {
		return 0, nil
	}
	if k.sockets[l.ID] == 0 {
		k.next++
		k.sockets[l.ID] = k.next | 1<<63
	}
	return k.sockets[l.ID], nil
}

func (k *fakeKernel) Start(starts []start, done func(int, *process, error)) {
	for i, st := range starts {
		if k.onStart != nil {
			k.onStart(st.launch)
		}
		if !k.fence.allows(st.launch.Lease, st.isCleanup()) {
			done(i, nil, errFenced)
			continue
		}
		p, err := k.startOne(st)
		done(i, p, err)
	}
}

func (k *fakeKernel) startOne(st start) (*process, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := st.launch
	if err := k.startErr[l.ID]; err != nil {
		return nil, err
	}
	if p := k.byID[l.ID]; p != nil && k.live[p.token] != nil {
		k.t.Errorf("%s was started beside its live process %d", l.ID, p.pid)
	}
	k.next++
	p := &fakeProcess{id: l.ID, started: time.Now(), process: &process{token: k.next, pid: 1000 + int(k.next),
		startTicks: k.next, bootID: k.boot, session: 1000 + int(k.next)}}
	k.live[p.token], k.byID[l.ID] = p, p
	what := st.argv()[0]
	if st.isCleanup() {
		what += ":" + st.exit
	}
	k.ran = append(k.ran, what)
	return p.process, nil
}

// refuses makes the starts of an instance fail; nil: no more.
func (k *fakeKernel) refuses(id spec.InstanceID, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.startErr[id] = err
}

func (k *fakeKernel) Find(pid int, ticks uint64, boot string, _ marks) (*process, error) {
	if k.findErr != nil {
		return nil, k.findErr
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.live {
		if p.pid == pid && p.startTicks == ticks && boot == k.boot {
			return p.process, nil
		}
	}
	return nil, nil
}

func (k *fakeKernel) Signal(p *process, sig syscall.Signal) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.live[p.token]
	if f == nil {
		return nil
	}
	k.signals = append(k.signals, fmt.Sprintf("%s %s", f.id, signalName(sig)))
	if sig == syscall.SIGKILL || k.onSignal == nil || k.onSignal(f, sig) {
		k.ended(f.id, spec.Exit{Signal: signalName(sig)})
	}
	return nil
}

func (k *fakeKernel) Collect(p *process, last bool) (spec.Exit, bool) {
	k.fence.release(p)
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.live[p.token]
	if f.mute && !last {
		return spec.Exit{}, false
	}
	delete(k.live, p.token)
	if f.mute {
		return spec.Exit{Unknown: true}, true
	}
	return f.exit, true
}

func (k *fakeKernel) Messages(id spec.InstanceID) []notification {
	m := k.messages[id]
	delete(k.messages, id)
	return m
}

func (k *fakeKernel) ChangeMain(*process, int, marks) (*process, error) {
	return nil, errors.New("not its own")
}

// end lets the newest process of an instance die.
func (k *fakeKernel) end(id spec.InstanceID, exit spec.Exit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended(id, exit)
}

// ended is end with k.mu held.
func (k *fakeKernel) ended(id spec.InstanceID, exit spec.Exit) {
	p := k.byID[id]
	if p.over.IsZero() {
		p.over = time.Now()
	}
	p.exit = exit
	k.events <- []kernelEvent{{token: p.token}}
}

// say lets a process notify.
func (k *fakeKernel) say(id spec.InstanceID, n notification) {
	k.messages[id] = append(k.messages[id], n)
	k.events <- []kernelEvent{{token: k.sockets[id], notify: true}}
}

// world is a loop on a fake kernel in virtual time.
type world struct {
	*supervisor
	*lifecycle
	t    *testing.T
	fake *fakeKernel
	dir  string
	end  context.CancelFunc // nil once it is stopped
	heir *world             // see successor
}

// inWorld runs a test of a loop in a bubble of virtual time.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir(), newFakeKernel(t))
		w.start(&replayed{})
		f(w)
		for w.heir != nil {
			w = w.heir
		}
		w.stop()
	})
}

func newWorld(t *testing.T, dir string, k *fakeKernel) *world {
	j := &journal{dir: dir, log: hclog.NewNullLogger(), ring: newRing(0), segmentSize: defaultSegmentSize, segments: defaultSegments}
	n := 0
	nonce := func() string { n++; return fmt.Sprint("nonce", n) }
	k.fence = newFence(hclog.NewNullLogger(), k.clock, &leaseFile{path: filepath.Join(dir, "leases"), boot: k.boot}, k.Signal)
	s := newSupervisor(hclog.NewNullLogger(), k, k.fence, j, nonce)
	return &world{supervisor: s, lifecycle: s.life, t: t, fake: k, dir: dir}
}

// start adopts what a replay says and runs the loop.
func (w *world) start(r *replayed) {
	ctx, cancel := context.WithCancel(context.Background())
	w.end = cancel
	w.journal.seq = r.seq
	w.fake.clock.open()
	w.leases.fence.open()
	if err := w.adopt(r, time.Now()); err != nil {
		w.t.Fatal(err)
	}
	go w.run(ctx)
	synctest.Wait()
}

// stop ends the loop and leaves its processes, as SIGKILL would.
func (w *world) stop() {
	if w.end == nil {
		return
	}
	w.end()
	w.end = nil
	w.leases.fence.close()
	synctest.Wait()
	w.journal.close()
}

// successor stops the loop if it runs, and starts the next one on its journal and
// kernel.
func (w *world) successor() *world {
	w.stop()
	w.heir = newWorld(w.t, w.dir, w.fake)
	w.heir.start(w.heir.replayed())
	return w.heir
}

// set declares launches, and waits until everything has settled.
func (w *world) set(launches ...spec.Launch) {
	w.t.Helper()
	w.onLoop(func() error { return w.declare(launches, nil, time.Now()) })
}

func (w *world) drop(ids ...spec.InstanceID) {
	w.t.Helper()
	w.onLoop(func() error { return w.declare(nil, ids, time.Now()) })
}

// ask runs something on the loop.
func (w *world) onLoop(f func() error) {
	w.t.Helper()
	var err error
	if derr := w.do(context.Background(), func() { err = f() }); derr != nil || err != nil {
		w.t.Fatal(derr, err)
	}
	synctest.Wait()
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// exits lets the process of an instance end.
func (w *world) exits(id spec.InstanceID, code int) {
	w.fake.end(id, spec.Exit{Code: code})
	synctest.Wait()
}

func (w *world) says(id spec.InstanceID, n notification) {
	w.fake.say(id, n)
	synctest.Wait()
}

// see returns an instance as it is told; the zero one if it is not known.
func (w *world) see(id spec.InstanceID) (v spec.Instance) {
	w.t.Helper()
	w.onLoop(func() error {
		if in := w.byID[id]; in != nil {
			v = in.view
		}
		return nil
	})
	return v
}

// wants fails the test unless an instance is in a phase and generation.
func (w *world) wants(id spec.InstanceID, p spec.Phase, generation uint64) spec.Instance {
	w.t.Helper()
	v := w.see(id)
	if v.Phase != p || v.Generation != generation {
		w.t.Errorf("%s is %s in generation %d (%s), want %s in %d", id, v.Phase, v.Generation, v.Reason, p, generation)
	}
	return v
}

// told returns the events of a type.
func (w *world) told(kind spec.EventType) (out []spec.Event) {
	events, _, _ := w.journal.ring.after(0, ringSize)
	for _, e := range events {
		if e.Type == kind {
			out = append(out, e)
		}
	}
	return out
}

// replayed reads the journal as a successor would.
func (w *world) replayed() *replayed {
	w.t.Helper()
	r, err := replay(filepath.Clean(w.dir))
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}
