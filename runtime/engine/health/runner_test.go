package health

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// scripted is a runner whose checks do what a test says.
type scripted struct {
	*Runner
	t *testing.T

	mu      sync.Mutex // guards all below
	runs    map[string][]time.Time
	found   []string
	now     int // checks that run
	most    int
	open    int // checkers that are not closed
	answers func(ctx context.Context, id spec.InstanceID, check string) error
}

// script is a checker of it.
type script struct {
	s     *scripted
	id    spec.InstanceID
	name  string
	ready func() bool
}

func (c *script) check(ctx context.Context) Result {
	c.s.mu.Lock()
	key := c.id.String() + " " + c.name
	c.s.runs[key] = append(c.s.runs[key], time.Now())
	c.s.now++
	c.s.most = max(c.s.most, c.s.now)
	answers := c.s.answers
	c.s.mu.Unlock()
	err := answers(ctx, c.id, c.name)
	c.s.mu.Lock()
	c.s.now--
	c.s.mu.Unlock()
	if err == nil && c.name == "ready" && !c.ready() {
		err = fmt.Errorf("not ready")
	}
	return Result{Err: err}
}

func (c *script) close() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.open--
}

// runningChecks runs a test with a runner in virtual time.
func runningChecks(t *testing.T, test func(*scripted)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{t: t, runs: map[string][]time.Time{}}
		s.answers = func(context.Context, spec.InstanceID, string) error { return nil }
		random := 0.0
		s.Runner = New(Config{
			Found: func(target *Target, f Finding) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.found = append(s.found, fmt.Sprintf("%s@%d %s", target.ID, f.Life.Generation, f.Health))
			},
			Random: func() float64 { random += 0.137; return random - float64(int(random)) },
			make: func(target *Target, h *spec.Health, _ Tally, ready func() bool) (checker, error) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.open++
				return &script{s: s, id: target.ID, name: h.Name, ready: ready}, nil
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.Run(ctx); close(done) }()
		test(s)
		cancel()
		<-done
		if s.open != 0 {
			t.Errorf("%d checkers were not closed", s.open)
		}
	})
}

// instance returns a target with checks of the given names, every 10 s.
func instance(shard int, generation uint64, names ...string) *Target {
	t := &Target{ID: spec.InstanceID{Job: "shop", Process: "web", Shard: shard}, Life: spec.Life{Generation: generation}, Started: time.Now(), Ready: true}
	for _, name := range names {
		h := spec.DefaultHealth(name)
		h.Notify = name == "ready"
		t.Checks = append(t.Checks, h)
	}
	return t
}

func (s *scripted) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *scripted) wantFound(want ...string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.found, want) {
		s.t.Errorf("found %q, want %q", s.found, want)
	}
	s.found = nil
}

func TestChecksRunAtOnceAndThenEveryInterval(t *testing.T) {
	runningChecks(t, func(s *scripted) {
		begun := time.Now()
		s.Set([]*Target{instance(0, 1, "a", "b")}, begun)
		s.wait(time.Second)
		s.wantFound("shop/web/0@1 unknown", "shop/web/0@1 unknown", "shop/web/0@1 passing")
		s.wait(99 * time.Second)
		s.wantFound()
		for name, runs := range s.runs {
			if len(runs) < 10 || len(runs) > 12 || runs[0].Sub(begun) > time.Second {
				t.Errorf("%s ran at %v", name, runs)
			}
			for i := 2; i < len(runs); i++ {
				if runs[i].Sub(runs[i-1]) != 10*time.Second {
					t.Errorf("%s ran %s after the last time", name, runs[i].Sub(runs[i-1]))
				}
			}
		}
	})
}

func TestChecksAreSpreadOverTheirInterval(t *testing.T) {
	runningChecks(t, func(s *scripted) {
		var targets []*Target
		for shard := range 1000 {
			targets = append(targets, instance(shard, 1, "a"))
		}
		s.Set(targets, time.Now())
		s.wait(30 * time.Second)
		bySecond := map[int64]int{}
		for _, runs := range s.runs {
			bySecond[runs[len(runs)-1].UnixMilli()/1000%10]++
		}
		for second := range int64(10) {
			if n := bySecond[second]; n < 20 || n > 250 {
				t.Errorf("%d of 1000 checks ran in the same second of 10", n)
			}
		}
	})
}

func TestChecksThatHangHoldUpAFewOthersAtMost(t *testing.T) {
	runningChecks(t, func(s *scripted) {
		s.answers = func(ctx context.Context, _ spec.InstanceID, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		}
		var targets []*Target
		for shard := range 200 {
			targets = append(targets, instance(shard, 1, "a"))
		}
		s.Set(targets, time.Now())
		s.wait(10 * time.Second)
		if s.most != workers || len(s.runs) != 200 {
			t.Errorf("%d checks ran at once, of %d instances", s.most, len(s.runs))
		}
	})
}

func TestLateResultSaysNothingAboutTheNextGeneration(t *testing.T) {
	runningChecks(t, func(s *scripted) {
		release := make(chan struct{})
		s.answers = func(context.Context, spec.InstanceID, string) error { <-release; return nil }
		s.Set([]*Target{instance(0, 1, "a")}, time.Now())
		s.wait(900 * time.Millisecond)
		s.Set([]*Target{instance(0, 2, "a")}, time.Now())
		s.mu.Lock()
		s.answers = func(context.Context, spec.InstanceID, string) error { return fmt.Errorf("down") }
		s.mu.Unlock()
		close(release)
		s.wait(time.Minute)
		s.wantFound("shop/web/0@1 unknown", "shop/web/0@2 unknown", "shop/web/0@2 unknown", "shop/web/0@2 failing")
	})
}

func TestRunningCheckOfWhatIsGoneIsCancelled(t *testing.T) {
	runningChecks(t, func(s *scripted) {
		ended := make(chan error, 1)
		s.answers = func(ctx context.Context, _ spec.InstanceID, _ string) error {
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return ctx.Err()
		}
		target := instance(0, 1, "a")
		target.Checks[0].Timeout = spec.Duration(time.Minute)
		s.Set([]*Target{target}, time.Now())
		s.wait(time.Second)
		s.Set(nil, time.Now())
		if err := <-ended; err != context.Canceled {
			t.Errorf("it ended with %v", err)
		}
		s.wait(time.Hour)
		s.wantFound("shop/web/0@1 unknown")
	})
}

func TestUnchangedTargetGoesOnAndOtherChecksBeginAnew(t *testing.T) {
	runningChecks(t, func(s *scripted) {
		first := instance(0, 1, "a")
		s.Set([]*Target{first}, time.Now())
		s.wait(time.Second)
		s.wantFound("shop/web/0@1 unknown", "shop/web/0@1 passing")
		same := *first
		same.Checks = slices.Clone(first.Checks)
		s.Set([]*Target{&same}, time.Now())
		s.wait(time.Second)
		s.wantFound()
		more := instance(0, 1, "a", "b")
		s.Set([]*Target{more}, time.Now())
		s.wait(time.Second)
		s.wantFound("shop/web/0@1 unknown", "shop/web/0@1 passing")
		if n := len(s.runs["shop/web/0 a"]); n != 1 {
			t.Errorf("the check that was there already ran %d times at once", n)
		}
	})
}

func TestReadinessIsSeenAtOnce(t *testing.T) {
	runningChecks(t, func(s *scripted) {
		target := instance(0, 1, "ready")
		target.Ready = false
		target.Checks[0].Failures = 1000
		s.Set([]*Target{target}, time.Now())
		s.wait(15 * time.Second)
		s.wantFound("shop/web/0@1 unknown", "shop/web/0@1 unknown") // once with the reason
		ready := *target
		ready.Ready = true
		s.Set([]*Target{&ready}, time.Now())
		s.wait(0)
		s.wantFound("shop/web/0@1 passing")
	})
}

func TestKnownFindingIsGoneOnWith(t *testing.T) {
	runningChecks(t, func(s *scripted) {
		target := instance(0, 1, "a")
		target.Known = &Finding{Life: target.Life, Health: spec.HealthPassing, Since: began,
			Checks: []spec.CheckResult{{Name: "a", State: spec.HealthPassing, Since: began}}}
		s.Set([]*Target{target}, time.Now())
		s.wait(time.Minute)
		s.wantFound("shop/web/0@1 passing")
		for id := range s.runs {
			if !strings.HasPrefix(id, "shop/web/0") {
				t.Errorf("%s was checked", id)
			}
		}
	})
}

func TestChecksGoOnWhenTheClockIsSetBack(t *testing.T) {
	r := New(Config{Found: func(*Target, Finding) {}})
	h := spec.DefaultHealth("a")
	now := time.Now()
	r.Set([]*Target{{ID: spec.InstanceID{Job: "j", Process: "p"}, Started: now, Checks: []spec.Health{h}}}, now)
	if !strings.Contains(r.due[0].at.String(), "m=") {
		t.Error("the time of a check goes by the wall clock alone")
	}
	back := now.Add(-time.Hour).Round(0) // without its monotonic reading
	if _, wait := r.next(back); wait > h.Interval.Std() {
		t.Errorf("a check every %s is not run for %s", h.Interval, wait)
	}
	if p, _ := r.next(back.Add(h.Interval.Std())); p == nil {
		t.Errorf("a check every %s is not run after it", h.Interval)
	}
}
