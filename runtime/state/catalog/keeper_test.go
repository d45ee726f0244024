package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// fakeLocal is a Consul agent: its checks turn critical after their TTL.
type fakeLocal struct {
	mu       sync.Mutex // guards all below
	services map[string]Service
	reported map[string]time.Time
	calls    []string
	fails    map[string]error // by call; "" fails all
}

func newFakeLocal(services ...Service) *fakeLocal {
	return &fakeLocal{services: byID(services...), reported: map[string]time.Time{}, fails: map[string]error{}}
}

var _ Local = (*fakeLocal)(nil)

// call notes a call. The caller holds f.mu.
func (f *fakeLocal) call(verb, id string) error {
	text := strings.TrimSpace(verb + " " + id)
	f.calls = append(f.calls, text)
	if err := f.fails[""]; err != nil {
		return err
	}
	return f.fails[text]
}

func (f *fakeLocal) Services(context.Context) ([]Service, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call("list", ""); err != nil {
		return nil, err
	}
	return slices.Collect(maps.Values(f.services)), nil
}

func (f *fakeLocal) Register(_ context.Context, s Service) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call("register", s.ID); err != nil {
		return err
	}
	s.Check.Output = ""
	f.services[s.ID], f.reported[s.ID] = s, time.Now()
	return nil
}

func (f *fakeLocal) Deregister(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call("deregister", id); err != nil {
		return err
	}
	delete(f.services, id)
	return nil
}

func (f *fakeLocal) Report(_ context.Context, id string, c Check) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call("report", id); err != nil {
		return err
	}
	s, ok := f.services[id]
	if !ok {
		return ErrUnknown
	}
	s.Check = c
	f.services[id], f.reported[id] = s, time.Now()
	return nil
}

// take returns the calls since the last take.
func (f *fakeLocal) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// fail makes a call fail from now on, or with nil succeed.
func (f *fakeLocal) fail(call string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails[call] = err
}

// text is the list as others see it.
func (f *fakeLocal) text() (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, s := range f.services {
		check := s.Check
		if at, ok := f.reported[id]; ok && time.Since(at) >= TTL {
			check = Check{spec.ServiceCritical, "TTL expired"}
		}
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", id, check.State, check.Output)))
	}
	slices.Sort(out)
	return out
}

// rig is a keeper with all around it.
type rig struct {
	t     *testing.T
	local *fakeLocal
	*Keeper
	stop func()

	mu       sync.Mutex // guards all below
	wanted   []Service
	partial  bool
	problems []string
}

// within runs a test of a running keeper in a bubble with virtual time.
func within(t *testing.T, local *fakeLocal, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, local: local}
		r.start()
		defer func() { r.stop() }()
		test(t, r)
	})
}

func (r *rig) start() {
	r.Keeper = NewKeeper(Config{
		Local: r.local, Mine: Mine("n1"), Logger: hclog.NewNullLogger(),
		Wanted: func() ([]Service, bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.wanted, !r.partial
		},
		Problem: func(text string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.problems = append(r.problems, text)
		},
	})
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

func (r *rig) want(services ...Service) {
	r.mu.Lock()
	r.wanted = services
	r.mu.Unlock()
	r.Wake()
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func ill(id string) Service {
	s := passing(id)
	s.Check = Check{spec.ServiceCritical, "failed: used up"}
	return s
}

const web1 = "meshrun/n1/shop/web/1/web"

func TestTheListFollowsWhatIsWanted(t *testing.T) {
	within(t, newFakeLocal(passing("db"), passing("meshrun/n1/old/web/0/web"), passing("meshrun/n2/shop/web/0/web")), func(t *testing.T, r *rig) {
		wait(time.Second)
		same(t, "calls", r.local.take(), "list", "deregister meshrun/n1/old/web/0/web")
		r.want(passing(web), ill(web1))
		wait(time.Second)
		same(t, "calls", r.local.take(), "register "+web, "report "+web, "register "+web1, "report "+web1)
		r.want(ill(web))
		wait(time.Second)
		same(t, "calls", r.local.take(), "deregister "+web1, "report "+web)
		same(t, "list", r.local.text(), "db passing", web+" critical failed: used up", "meshrun/n2/shop/web/0/web passing")
	})
}

func TestNothingButRefreshesHappensWhileNothingChanges(t *testing.T) {
	within(t, newFakeLocal(), func(t *testing.T, r *rig) {
		r.want(passing(web), passing(web1))
		wait(settle)
		r.local.take()
		begun := time.Now()
		wait(time.Hour)
		calls := r.local.take()
		if n := int(time.Since(begun)/RefreshEvery) * 2; len(calls) != n {
			t.Errorf("%d calls in an hour, want %d", len(calls), n)
		}
		for _, call := range calls {
			if !strings.HasPrefix(call, "report ") {
				t.Errorf("there was also: %s", call)
			}
		}
		same(t, "list", r.local.text(), web+" passing", web1+" passing")
	})
}

func TestABurstOfChangesIsOne(t *testing.T) {
	within(t, newFakeLocal(), func(t *testing.T, r *rig) {
		wait(time.Second)
		r.local.take()
		for n := range 10 {
			s := ill(web)
			s.Check.Output = fmt.Sprint(n)
			r.want(s)
			wait(settle / 20)
		}
		r.want(passing(web))
		wait(settle)
		same(t, "calls", r.local.take(), "register "+web, "report "+web)
	})
}

// The agent dies and is back within the TTL: nobody notices. If it stays away,
// everybody does.
func TestTheChecksOutliveARestartAndNotADeath(t *testing.T) {
	within(t, newFakeLocal(), func(t *testing.T, r *rig) {
		r.want(passing(web))
		wait(RefreshEvery * 2)
		r.stop()
		wait(TTL - RefreshEvery - time.Second)
		same(t, "list", r.local.text(), web+" passing")
		r.local.take()
		r.start()
		wait(time.Second)
		same(t, "calls", r.local.take(), "list", "report "+web)
		r.stop()
		wait(TTL)
		same(t, "list", r.local.text(), web+" critical TTL expired")
		r.start()
		wait(time.Second)
		same(t, "list", r.local.text(), web+" passing")
	})
}

func TestNothingIsTakenOffBeforeAllIsKnown(t *testing.T) {
	local := newFakeLocal(passing(web), passing(web1))
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, local: local, partial: true, wanted: []Service{passing("meshrun-agent/n1")}}
		r.start()
		defer func() { r.stop() }()
		wait(time.Minute)
		same(t, "list", local.text(), "meshrun-agent/n1 passing", web+" passing", web1+" passing")
		r.mu.Lock()
		r.partial = false
		r.mu.Unlock()
		r.want(passing("meshrun-agent/n1"), passing(web))
		wait(time.Second)
		same(t, "list", local.text(), "meshrun-agent/n1 passing", web+" passing")
	})
}

func TestWhatConsulLostIsListedAgain(t *testing.T) {
	within(t, newFakeLocal(), func(t *testing.T, r *rig) {
		r.want(passing(web), passing(web1))
		wait(time.Second)
		r.local.mu.Lock()
		clear(r.local.services)
		r.local.mu.Unlock()
		wait(RefreshEvery)
		same(t, "list", r.local.text(), web+" passing", web1+" passing")
		if len(r.problems) > 0 {
			t.Errorf("there were problems: %q", r.problems)
		}
	})
}

func TestWhileConsulIsAwayItIsTriedMoreAndMoreRarely(t *testing.T) {
	within(t, newFakeLocal(), func(t *testing.T, r *rig) {
		r.want(passing(web))
		wait(time.Second)
		r.local.take()
		r.local.fail("", fmt.Errorf("%w: connection refused", state.ErrUnavailable))
		for n := range 600 { // changes don't make it more
			if n%2 == 0 {
				r.want(ill(web))
			} else {
				r.want(passing(web))
			}
			wait(100 * time.Millisecond)
		}
		if n := len(r.local.take()); n < 6 || n > 20 {
			t.Errorf("%d calls in a minute", n)
		}
		r.local.fail("", nil)
		wait(RefreshEvery)
		same(t, "list", r.local.text(), web+" passing")
		same(t, "problems", r.problems, "Consul's catalog does not show this node's services as they are: Consul is away", "")
	})
}

func TestARefusalKeepsNoOtherServiceFromBeingListed(t *testing.T) {
	within(t, newFakeLocal(), func(t *testing.T, r *rig) {
		r.local.fail("register "+web, fmt.Errorf("register %s: %w", web, state.ErrDenied))
		r.want(passing(web), passing(web1))
		wait(5 * TTL)
		same(t, "list", r.local.text(), web1+" passing")
		r.mu.Lock()
		if len(r.problems) != 1 || !strings.Contains(r.problems[0], "register "+web) {
			t.Errorf("problems: %q", r.problems)
		}
		r.mu.Unlock()
		r.local.fail("register "+web, nil)
		wait(RefreshEvery)
		same(t, "list", r.local.text(), web+" passing", web1+" passing")
	})
}

func TestWhoLeavesTakesAllOffTheList(t *testing.T) {
	within(t, newFakeLocal(passing("db"), passing("meshrun-agent/n2")), func(t *testing.T, r *rig) {
		r.want(passing(web), passing("meshrun-agent/n1"))
		wait(time.Second)
		r.stop()
		if err := r.Withdraw(t.Context()); err != nil {
			t.Error(err)
		}
		same(t, "list", r.local.text(), "db passing", "meshrun-agent/n2 passing")
		r.local.fail("", state.ErrUnavailable)
		if err := r.Withdraw(t.Context()); !errors.Is(err, state.ErrUnavailable) {
			t.Errorf("while Consul is away: %v", err)
		}
		r.local.fail("", nil)
		r.start()
	})
}
