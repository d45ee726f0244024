package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

// rolls returns a status of the job web with one process of 20 shards.
func rolls(version uint64, state spec.RolloutState, updated, healthy int, waits string) api.RolloutStatus {
	s := api.RolloutStatus{
		Job: "web", Version: version, Why: "apply", Who: "root", When: testNow().Add(-130 * time.Second),
		Rollout:  &spec.Rollout{Job: "web", Version: version, State: state},
		Progress: []spec.Progress{{Process: "app", State: state, Wanted: 20, Updated: updated, Healthy: healthy, Waits: waits}},
	}
	if state != spec.RolloutRunning && state != spec.RolloutDone {
		s.Rollout.Reason = "app: " + waits
	}
	return s
}

func TestARolloutReadsWell(t *testing.T) {
	running := rolls(4, spec.RolloutRunning, 7, 5, "shard 5 has to be healthy for 10s")
	running.Progress = append(running.Progress,
		spec.Progress{Process: "huge", State: spec.RolloutRunning, Wanted: 1000, Updated: 1, Waits: "shard 0 is starting"},
		spec.Progress{Process: "mailer", State: spec.RolloutDone, Wanted: 1, Updated: 1, Healthy: 1})
	reverting := rolls(4, spec.RolloutFailed, 1, 0, "shard 0 has failed (exit 3)")
	reverting.Reverting = 3
	draining := rolls(4, spec.RolloutFailed, 1, 0, "shard 0 has failed (exit 3)")
	draining.Waiting = map[spec.InstanceID]string{id("app", 3): "restart with another definition waits: the rollout has failed"}
	for shard := 4; shard < 8; shard++ {
		draining.Waiting[id("app", shard)] = "move to beta waits: shard 0 has failed; version 4 has failed: go back with `meshrun revert web`, or apply one that works"
	}
	var b strings.Builder
	for _, s := range []api.RolloutStatus{
		running,
		rolls(4, spec.RolloutWaiting, 1, 1, "the canaries are healthy and wait for: meshrun promote web/app"),
		rolls(4, spec.RolloutPaused, 7, 7, "it is paused, until: meshrun resume web/app"),
		rolls(4, spec.RolloutFailed, 1, 0, "shard 0 has failed (exit 3)"),
		rolls(1, spec.RolloutFailed, 20, 19, "shard 7 has failed (exit 3)"),
		reverting,
		draining,
		rolls(4, spec.RolloutDone, 20, 20, ""),
	} {
		b.WriteString(renderRollout(&s, style{}, testNow()))
	}
	golden(t, "rollout", b.String())
	golden(t, "rollout-colour", renderRollout(&running, style{on: true}, testNow()))
}

func TestHowARolloutEnds(t *testing.T) {
	orders := func(why string, s api.RolloutStatus) api.RolloutStatus {
		s.Why = why
		return s
	}
	bad := "version 4 has failed, and version 3 takes its place as version 5: app: shard 2 is down (exit 3: no)"
	for name, c := range map[string]struct {
		status   api.RolloutStatus
		reverted string
		says     string // "" while it goes on
		waits    bool
	}{
		"it goes on":                    {rolls(4, spec.RolloutRunning, 1, 0, "x"), "", "", false},
		"it has not begun":              {rolls(3, spec.RolloutDone, 20, 20, ""), "", "", false},
		"it is done":                    {rolls(4, spec.RolloutDone, 20, 20, ""), "", errFollowed.Error(), false},
		"it has failed":                 {rolls(4, spec.RolloutFailed, 1, 0, "shard 0 has failed (exit 3)"), "", "meshrun revert web", false},
		"its failed shard is named":     {rolls(4, spec.RolloutFailed, 1, 0, "shard 0 has failed (exit 3)"), "", "`meshrun logs web/app/0` and `meshrun events -since 5m web`", false},
		"the reverted shard is named":   {orders("revert", rolls(5, spec.RolloutDone, 20, 20, "")), bad, "`meshrun logs web/app/2` and `meshrun events -since 5m web`", false},
		"no shard is to blame":          {orders("revert", rolls(5, spec.RolloutDone, 20, 20, "")), "it was bad", "`meshrun logs web` and `meshrun events -since 5m web`", false},
		"its canaries wait":             {rolls(4, spec.RolloutWaiting, 1, 1, "wait for: meshrun promote web/app"), "", "meshrun promote", true},
		"somebody paused it":            {orders("pause", rolls(5, spec.RolloutPaused, 1, 1, "until: meshrun resume web/app")), "", "meshrun resume", true},
		"somebody promoted it":          {orders("promote", rolls(5, spec.RolloutRunning, 1, 1, "x")), "", "", false},
		"somebody applied another":      {rolls(5, spec.RolloutRunning, 1, 1, "x"), "", "version 5 (apply, by root)", false},
		"somebody reverted it":          {orders("revert to version 3", rolls(5, spec.RolloutRunning, 1, 1, "x")), "", "version 5 (revert to version 3, by root)", false},
		"an older one is on its way":    {orders("revert", rolls(5, spec.RolloutRunning, 1, 1, "x")), "it was bad", "", false},
		"an older one is back":          {orders("revert", rolls(5, spec.RolloutDone, 20, 20, "")), "it was bad", "it was bad; that is rolled out now", false},
		"the older one is no good":      {orders("revert", rolls(5, spec.RolloutFailed, 1, 0, "shard 0 has failed")), "it was bad", "failed, too", false},
		"an older one is about to come": {func() api.RolloutStatus { s := rolls(4, spec.RolloutFailed, 1, 0, "x"); s.Reverting = 3; return s }(), "", "", false},
	} {
		err := rolloutEnd(&c.status, 4, c.reverted)
		var waits *waitsError
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: it ends with %v", name, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v does not say %q", name, err, c.says)
		case errors.As(err, &waits) != c.waits:
			t.Errorf("%s: %v, as one that waits %v", name, err, !c.waits)
		}
	}
}

// rollout is a backend that answers with one status after the other.
func rollout(statuses ...api.RolloutStatus) *apitest.Backend {
	plan := changingPlan()
	plan.Jobs[0].Steps = true
	for i := range statuses {
		statuses[i].Tag = string(rune('a' + i))
	}
	return &apitest.Backend{
		PlanFunc:      func(context.Context, api.PlanRequest) (spec.Plan, error) { return plan, nil },
		ApplyFunc:     func(context.Context, spec.Plan) (api.ApplyResult, error) { return api.ApplyResult{}, nil },
		InstancesFunc: func(context.Context, uint64) ([]spec.Instance, uint64, error) { return nil, 1, nil },
		EventsFunc: func(_ context.Context, q api.EventQuery, each func(spec.Event) error) error {
			return each(spec.Event{Type: q.Types[0], Job: q.Job, Version: 5, Message: "version 4 has failed, and version 3 takes its place as version 5: app: exit 3"})
		},
		RolloutFunc: func(ctx context.Context, job, after string) (api.RolloutStatus, error) {
			n := 0
			if after != "" {
				n = int(after[0]-'a') + 1
			}
			if n >= len(statuses) {
				<-ctx.Done()
				return api.RolloutStatus{}, ctx.Err()
			}
			return statuses[n], nil
		},
	}
}

func TestWaitingFollowsARolloutAndTellsByTheExitCode(t *testing.T) {
	file := jobFile(t, webJob)
	running := rolls(4, spec.RolloutRunning, 1, 0, "shard 0 has to be healthy for 10s")
	back := rolls(5, spec.RolloutDone, 20, 20, "")
	back.Why, back.Reverted = "revert", true
	for name, c := range map[string]struct {
		last api.RolloutStatus
		code int
		says []string
	}{
		"done":     {rolls(4, spec.RolloutDone, 20, 20, ""), 0, []string{"web/app  1 of 20 updated, 0 healthy; shard 0 has to be", "web/app  20 of 20 updated\n", "Done."}},
		"failed":   {rolls(4, spec.RolloutFailed, 1, 0, "shard 0 has failed (exit 3)"), 1, []string{"Error: web version 4 has failed: app: shard 0 has failed (exit 3)", "meshrun logs web/app"}},
		"reverted": {back, 1, []string{"Error: web: version 4 has failed, and version 3 takes its place as version 5: app: exit 3"}},
		"waiting":  {rolls(4, spec.RolloutWaiting, 1, 1, "wait for: meshrun promote web/app"), 3, []string{"Waiting: web version 4 waits to be promoted", "meshrun promote web/app"}},
	} {
		_, stderr, code := meshrun(t, rollout(running, c.last), "apply", "-yes", "-wait", file)
		if code != c.code {
			t.Errorf("%s: exit %d, want %d\n%s", name, code, c.code, stderr)
		}
		for _, text := range c.says {
			if !strings.Contains(stderr, text) {
				t.Errorf("%s: %q is not in\n%s", name, text, stderr)
			}
		}
	}
}

func TestAWaitThatIsOverSaysHowFarTheRolloutIs(t *testing.T) {
	running, done := rolls(4, spec.RolloutRunning, 1, 0, "shard 0 is starting"), rolls(4, spec.RolloutDone, 20, 20, "")
	f := rolloutFollower{seen: map[string]*api.RolloutStatus{"web": &running, "db": &done}}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	err := f.verdict(ctx, []error{ctx.Err()}, time.Minute)
	want := "after 1m it is not rolled out yet, and goes on: web/app  1 of 20 updated, 0 healthy; shard 0 is starting: see"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v\nwant %s…", err, want)
	}
	_, stderr, code := meshrun(t, rollout(running), "apply", "-yes", "-wait", "-timeout", "50ms", jobFile(t, webJob))
	if code != 1 || !strings.Contains(stderr, "wait longer with -timeout") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

func TestOnATerminalARolloutIsDrawnInPlaceBelowWhatIsSaid(t *testing.T) {
	term, _, errOut := testTerm(nil)
	term.liveErr = true
	term.size = func() (int, int) { return 40, 4 }
	term.draw([]string{"web  rolling out", strings.Repeat("x", 50)})
	term.say("a message")
	term.draw([]string{"web  done"})
	term.settle()
	term.say("the end")
	want := "web  rolling out\x1b[K\n" + strings.Repeat("x", 40) + "\x1b[0m\x1b[K\n\x1b[J" +
		"\x1b[2A\r\x1b[J" + "a message\n" + "web  rolling out\n" + strings.Repeat("x", 40) + "\x1b[0m\n" +
		"\x1b[2A\rweb  done\x1b[K\n\x1b[J" + "the end\n"
	if got := errOut.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	term.draw([]string{"1", "2", "3", "4", "5"})
	if len(term.panel) != 3 || !strings.Contains(term.panel[2], "3 lines more") {
		t.Errorf("on a low screen: %q", term.panel)
	}
}

func TestAnOrderAboutARolloutSaysWhatHappensNow(t *testing.T) {
	none := rolls(4, spec.RolloutDone, 20, 20, "")
	none.Rollout, none.Progress = nil, nil
	for _, c := range []struct {
		command string
		status  api.RolloutStatus
		says    string
	}{
		{"pause", rolls(5, spec.RolloutPaused, 7, 6, "it is paused"), "web/app: paused, with 7 of 20 updated, 6 healthy; go on with `meshrun resume web/app`, go back with `meshrun revert web`\n"},
		{"pause", rolls(5, spec.RolloutDone, 20, 20, ""), "web/app: paused: nothing is being rolled out, and what is applied waits for `meshrun resume web/app`\n"},
		{"pause", none, "web: paused, until it is resumed\n"},
		{"resume", none, "web: nothing is being rolled out\n"},
		{"resume", rolls(5, spec.RolloutRunning, 7, 7, "shard 7 is starting"), "web/app: goes on, with 7 of 20 updated; shard 7 is starting\n"},
		{"resume", rolls(5, spec.RolloutWaiting, 1, 1, "the canaries are healthy and wait for: meshrun promote web/app"), "web/app: the canaries are healthy and wait for: meshrun promote web/app\n"},
		{"promote", rolls(5, spec.RolloutRunning, 1, 1, "x"), "web/app: promoted; the other 19 shards follow, with 1 of 20 updated now\n"},
		{"promote", rolls(5, spec.RolloutRunning, 19, 19, "x"), "web/app: promoted; the other shard follows, with 19 of 20 updated now\n"},
		{"promote", rolls(5, spec.RolloutDone, 20, 20, ""), "web/app: nothing waits to be promoted: all 20 shards are as wanted\n"},
		{"promote", rolls(5, spec.RolloutPaused, 1, 1, "it is paused, until: meshrun resume web/app"), "web/app: promoted; it is paused: the other 19 shards follow after `meshrun resume web/app`\n"},
		{"promote", rolls(5, spec.RolloutFailed, 20, 19, "shard 7 has failed (exit 3)"), "web/app: nothing waits to be promoted: all shards are updated, and it has failed: shard 7 has failed (exit 3)\n"},
		{"promote", none, "web: nothing waits to be promoted\n"},
	} {
		b := rollout(c.status)
		var asked []api.Order
		b.PlanFunc = func(_ context.Context, r api.PlanRequest) (spec.Plan, error) {
			asked = r.Orders
			return changingPlan(), nil
		}
		stdout, stderr, code := meshrun(t, b, c.command, "web")
		if code != 0 || stdout != c.says {
			t.Errorf("%s: exit %d, %q, want %q\n%s", c.command, code, stdout, c.says, stderr)
		}
		if len(asked) != 1 || asked[0] != (api.Order{Op: spec.Op(c.command), Target: "web"}) {
			t.Errorf("%s: asked %+v", c.command, asked)
		}
	}
}

func TestWhatHasFailedIsNotPromoted(t *testing.T) {
	b := rollout(rolls(4, spec.RolloutFailed, 1, 0, "shard 0 has failed (exit 3)"))
	b.PlanFunc = func(context.Context, api.PlanRequest) (spec.Plan, error) {
		t.Error("it is ordered nonetheless")
		return emptyPlan(), nil
	}
	stdout, stderr, code := meshrun(t, b, "promote", "web/app")
	if code != 1 || stdout != "" || !strings.Contains(stderr, "web/app is not promoted: version 4 has failed: shard 0 has failed (exit 3)") || !strings.Contains(stderr, "meshrun revert web") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
}

func TestARevertAsksForTheLastGoodVersion(t *testing.T) {
	var asked api.PlanRequest
	b := &apitest.Backend{PlanFunc: func(_ context.Context, r api.PlanRequest) (spec.Plan, error) { asked = r; return emptyPlan(), nil }}
	if _, stderr, code := meshrun(t, b, "revert", "web"); code != 0 || len(asked.Rollbacks) != 1 || asked.Rollbacks[0] != (api.Rollback{Job: "web", Good: true}) {
		t.Errorf("exit %d, asked %+v\n%s", code, asked.Rollbacks, stderr)
	}
}

// stepJob is the job web with an update block.
func stepJob(version uint64) spec.JobVersion {
	p, u := spec.DefaultProcess("app"), spec.DefaultUpdate()
	p.Update = &u
	return spec.JobVersion{Version: version, When: testNow(), Job: spec.Job{Name: "web", Processes: []spec.Process{p}}}
}

func TestStatusShowsRolloutsThatAreNotDoneAndFollowsThem(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex // guards done
	done := false
	b := rollout(rolls(4, spec.RolloutRunning, 1, 0, "shard 0 is starting"), rolls(4, spec.RolloutRunning, 2, 1, "shard 1 is starting"))
	b.InfoFunc = func(context.Context) (api.Info, error) { return api.Info{Node: "alpha"}, nil }
	b.JobsFunc = func(context.Context) ([]spec.JobVersion, error) { return []spec.JobVersion{stepJob(4)}, nil }
	b.InstancesFunc = func(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
		if after > 0 { // nothing happens to the instances
			<-ctx.Done()
			return nil, 0, ctx.Err()
		}
		return []spec.Instance{seen("app", 0, spec.PhaseRunning)}, 1, nil
	}
	b.RolloutsFunc = func(context.Context) ([]spec.Rollout, error) {
		mu.Lock()
		defer mu.Unlock()
		if done {
			return []spec.Rollout{{Job: "web", Version: 4, State: spec.RolloutDone}}, nil
		}
		return []spec.Rollout{{Job: "web", Version: 3, State: spec.RolloutDone}}, nil
	}
	stdout, stderr, code := meshrun(t, b, "status", "web")
	if code != 0 || !strings.Contains(stdout, "rolling out  version 4") || !strings.Contains(stdout, "1 of 20 updated, 0 healthy") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}

	// The first one is over, as the instances don't tell but the rollout does.
	term, out, errOut := testTerm(map[string]string{"MESHRUN_DATA_DIR": apitest.Serve(t, b)})
	finished := make(chan int, 1)
	go func() { finished <- run(ctx, []string{"status", "-watch", "web"}, term) }()
	inTime(t, "the rollout", func() bool { return strings.Contains(out.String(), "1 of 20 updated") })
	mu.Lock()
	done = true
	mu.Unlock()
	inTime(t, "its end", func() bool {
		pictures := strings.Split(out.String(), "node alpha")
		return !strings.Contains(pictures[len(pictures)-1], "rolling out")
	})
	cancel()
	if code := <-finished; code != 0 {
		t.Errorf("exit %d\n%s", code, errOut.String())
	}
}

// inTime waits until something holds.
func inTime(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s has not come", what)
		}
	}
}

func TestWhatIsStoppedBeforeItEverRanIsDown(t *testing.T) {
	p := &spec.Plan{Jobs: []spec.JobPlan{{
		Job: "web", Action: spec.JobUpdate, To: 5, Wanted: &spec.JobVersion{Orders: map[string]spec.Order{"app": {Stopped: true}}},
		Instances: []spec.InstancePlan{{ID: id("app", 0), Action: spec.ActionKeep}},
	}}}
	if done, _, waiting := progress(goalsOf(p, nil), nil); done != 1 || len(waiting) != 0 {
		t.Errorf("%d down, still waiting for %v", done, waiting)
	}
}

func TestHelpTellsOfACommandAsTheFlagDoes(t *testing.T) {
	want, _, _ := meshrun(t, nil, "apply", "-help")
	if got, stderr, code := meshrun(t, nil, "help", "apply"); code != 0 || got != want || !strings.Contains(got, "-wait") {
		t.Errorf("exit %d\n%s%s", code, got, stderr)
	}
	if got, _, code := meshrun(t, nil, "help"); code != 0 || !strings.Contains(got, "meshrun up PATH") {
		t.Errorf("exit %d\n%s", code, got)
	}
	if _, stderr, code := meshrun(t, nil, "help", "aply"); code != 1 || !strings.Contains(stderr, "apply") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}
