package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/schema"
	"github.com/synergymesh/meshrun/spec"
)

// upSession is an `up` that has an agent.
type upSession struct {
	up     *up
	client *api.Client
	info   api.Info
	// own is set if the agent is to end with the last `up`.
	own   bool
	since time.Time // only output from then on is shown
	print *logPrinter
	view  *upView

	ctx    context.Context // of the streams
	cancel context.CancelFunc
	wg     sync.WaitGroup // the streams

	mu    sync.Mutex        // guards jobs
	jobs  map[string]string // their files, by name
	first bool              // nothing was applied yet; only loaded and end use it
}

func newUpSession(c *up, client *api.Client, info api.Info) *upSession {
	s := &upSession{
		up: c, client: client, info: info, own: startedByUp(info.PID), since: c.term.now(),
		print: newLogPrinter(c.term, false), jobs: map[string]string{}, first: true,
	}
	s.view = newUpView(c.term, s.print)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// close ends the streams and waits for them.
func (s *upSession) close() {
	s.cancel()
	s.wg.Wait()
}

// loaded applies what the files say now; broken ones change nothing.
func (s *upSession) loaded(ctx context.Context, cfg *schema.Config, diags schema.Diagnostics) {
	term := s.up.term
	if ctx.Err() != nil {
		return
	}
	if diags.HasErrors() {
		term.say("")
		term.diagnostics(diags)
		term.say("\n%s\n", term.errStyle.yellow("Nothing was changed: what runs goes on as it was. Mend the file and save it again."))
		return
	}
	term.diagnostics(diags)
	if len(cfg.Jobs) == 0 && !s.first {
		// More often it is a directory that is being moved or filled than the
		// wish to stop everything.
		term.say("%s", term.errStyle.yellow("No job file is left, so nothing was changed: what runs goes on. Ctrl-C stops it."))
		return
	}
	req, err := planRequest(cfg, s.up.paths)
	var p spec.Plan
	if err == nil {
		s.follow(cfg.Jobs)
		p, err = s.up.applyFiles(ctx, s.client, req)
	}
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		term.errorf("%v", err)
		term.say("%s", term.errStyle.yellow("Nothing was changed: what runs goes on as it was."))
		return
	}
	s.applied(&p)
	if s.first {
		s.first = false
		s.up.hints(cfg.Jobs)
		s.watch()
		s.watchRollouts()
	}
}

// applied tells what an apply did: at first who starts, later what changed.
func (s *upSession) applied(p *spec.Plan) {
	term, style := s.up.term, s.up.term.errStyle
	stay := p.Counts()[spec.ActionKeep]
	switch {
	case p.Empty() && s.first:
		term.say("\n  everything is as the files say already: %s", count(stay, "instance"))
	case p.Empty():
		term.say("%s", style.dim("saved; nothing to change"))
	case s.first:
		var b strings.Builder
		for i := range p.Jobs {
			renderInstances(&b, p.Jobs[i].Instances, style, false)
		}
		if stay > 0 {
			fmt.Fprintf(&b, "  %s\n", style.dim(count(stay, "instance")+" stay"))
		}
		term.say("%s", strings.TrimRight(b.String(), "\n"))
	default:
		term.say("\n%s", renderPlan(p, style))
	}
}

// follow begins to show the output of jobs that are new.
func (s *upSession) follow(jobs []schema.Loaded) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range jobs {
		name := j.Job.Name
		_, known := s.jobs[name]
		if s.jobs[name] = j.Source; known {
			continue
		}
		s.wg.Go(func() {
			query := spec.LogQuery{Job: name, Shard: -1, Since: s.since, Follow: true}
			for s.ctx.Err() == nil {
				err := followLogs(s.ctx, s.client, query, s.print.print)
				if s.ctx.Err() != nil {
					return
				}
				if err != nil && !passing(err) {
					s.up.term.errorf("follow the output of %s: %v", name, err)
					return
				}
				query.Since = s.up.term.now()
			}
		})
	}
	s.print.showJobs(len(s.jobs) > 1)
}

// watch begins to show what becomes of the instances, and starts an agent
// again if agent and watchdog have both died.
func (s *upSession) watch() {
	away := &absence{
		revive: s.revive,
		begun: func() {
			s.up.term.say("%s", s.up.term.errStyle.yellow("the agent does not answer; what runs goes on. Waiting for its watchdog to bring it back"))
		},
		over: func() { s.up.term.say("%s", s.up.term.errStyle.green("the agent is back")) },
	}
	s.wg.Go(func() {
		err := watchInstances(s.ctx, s.client, away, func(list []spec.Instance) bool {
			s.view.show(s.ours(list))
			return true
		})
		if s.ctx.Err() == nil && err != nil {
			s.up.term.errorf("watch the instances: %v", err)
		}
	})
}

func (s *upSession) revive(ctx context.Context) error {
	dir, err := s.up.dataDir()
	if err != nil {
		return err
	}
	s.up.term.say("%s", s.up.term.errStyle.yellow("agent and watchdog are both gone; starting them again"))
	started, err := s.up.start(ctx, dir)
	if err != nil {
		return err
	}
	_, err = started.ready(ctx, s.client)
	return err
}

// ours returns the instances of the jobs of this session.
func (s *upSession) ours(list []spec.Instance) []spec.Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []spec.Instance
	for _, i := range list {
		if _, mine := s.jobs[i.ID.Job]; mine {
			out = append(out, i)
		}
	}
	return out
}

// jobNames returns the names of the jobs of this session.
func (s *upSession) jobNames() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.jobs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// end stops what the session applied, and the agent if it was started for it
// and nobody else uses it. Force ends the patience with the instances, quit
// that with everything.
func (s *upSession) end(force, quit context.Context) error {
	term := s.up.term
	ctx, cancel := context.WithTimeout(quit, stopLimit)
	defer cancel()
	if s.first {
		return s.endAgent(ctx)
	}
	term.say("\n%s %s", term.errStyle.bold("stopping"), term.errStyle.dim("(Ctrl-C again kills what is left)"))
	var err error
	for more := true; more && err == nil; {
		var names []string
		if names, more, err = s.remove(ctx); err == nil {
			err = s.waitDown(ctx, force, names)
		}
	}
	switch {
	case quit.Err() != nil:
		term.say("gave up; what is left goes on: see `meshrun status`")
		return exitCode(1)
	case err != nil:
		return err
	}
	return s.endAgent(ctx)
}

// remove takes the jobs of this session on which no other of them depends out of
// what is wanted, and reports whether there are more; the orchestrator stops
// their instances, dependents first. One that has come from another file since is
// somebody else's by now.
func (s *upSession) remove(ctx context.Context) (names []string, more bool, err error) {
	var away absence
	for {
		jobs, err := s.client.Jobs(ctx)
		if err == nil {
			mine := s.claim(jobs)
			free := undepended(jobs, mine)
			if names = free; len(free) == 0 {
				return nil, false, nil
			}
			if more = len(names) < len(mine); !more {
				names = nil // and what was taken out before
			}
			_, err = s.up.applyFiles(ctx, s.client, api.PlanRequest{Remove: free})
		}
		switch {
		case err == nil:
			return names, more, nil
		case errors.Is(err, api.ErrNotFound): // somebody was quicker
			err = pause(ctx, 10*time.Millisecond)
		case passing(err):
			err = away.wait(ctx, err)
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// undepended returns those of some jobs on which none of the others depends; if
// they depend on each other all around, all of them.
func undepended(jobs []spec.JobVersion, names []string) []string {
	needed := map[string]bool{}
	for i := range jobs {
		job := &jobs[i].Job
		if !slices.Contains(names, job.Name) {
			continue
		}
		for _, p := range job.Processes {
			for _, d := range p.DependsOn {
				if on, _ := d.Of(job.Name); on != job.Name {
					needed[on] = true
				}
			}
		}
	}
	free := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return needed[name] })
	if len(free) == 0 {
		return names
	}
	return free
}

// claim leaves the session the jobs that are from its files still, or are no
// longer wanted, and returns the names of the former.
func (s *upSession) claim(jobs []spec.JobVersion) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var mine []string
	for i := range jobs {
		name := jobs[i].Job.Name
		switch source, known := s.jobs[name]; {
		case !known:
		case source == jobs[i].Source:
			mine = append(mine, name)
		default:
			delete(s.jobs, name)
		}
	}
	return mine
}

// waitDown waits until the instances of some jobs, or of all of the session if
// names is nil, have ended, and kills those of all once force is done.
func (s *upSession) waitDown(ctx, force context.Context, names []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // guards left
	var left []spec.Instance
	impatient := make(chan struct{})
	go func() {
		defer close(impatient)
		ticker := time.NewTicker(slowStop)
		defer ticker.Stop()
		for forced := force.Done(); ; {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				mu.Lock()
				text := summary(left, s.up.term.now())
				mu.Unlock()
				s.up.term.say("%s", s.up.term.errStyle.dim("still stopping: "+text))
			case <-forced:
				forced = nil
				s.kill(ctx)
			}
		}
	}()
	err := watchInstances(ctx, s.client, &absence{}, func(list []spec.Instance) bool {
		s.view.show(s.ours(list)) // the last one that stops is told of, too
		mu.Lock()
		defer mu.Unlock()
		left = slices.DeleteFunc(s.ours(list), func(i spec.Instance) bool {
			return isDown(i.Phase) || (names != nil && !slices.Contains(names, i.ID.Job))
		})
		return len(left) > 0
	})
	cancel()
	<-impatient
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("after %s, %s still there: see `meshrun status`", ago(stopLimit), count(len(left), "instance"))
	}
	return err
}

// slowStop is how often instances that take long to stop are named.
const slowStop = 3 * time.Second

// kill sends SIGKILL to all instances of the session.
func (s *upSession) kill(ctx context.Context) {
	s.up.term.say("%s", s.up.term.errStyle.red("killing what is left"))
	for _, name := range s.jobNames() {
		if _, err := s.client.Signal(ctx, name, "SIGKILL"); err != nil && !errors.Is(err, api.ErrNotFound) && ctx.Err() == nil {
			s.up.term.errorf("kill %s: %v", name, err)
		}
	}
}

// endAgent ends the agent and its watchdog if an `up` has started them and no
// other job needs them.
func (s *upSession) endAgent(ctx context.Context) error {
	term := s.up.term
	if !s.own {
		term.say("%s %s", term.errStyle.green("stopped."), term.errStyle.dim("The agent was there before, and stays."))
		return nil
	}
	jobs, err := s.client.Jobs(ctx)
	if err != nil {
		return err
	}
	if len(jobs) > 0 {
		term.say("%s Other jobs run here (%s and so on), so the agent stays.", term.errStyle.green("stopped."), jobs[0].Job.Name)
		return nil
	}
	info, err := s.client.Info(ctx)
	if err != nil {
		return err
	}
	s.cancel() // the streams end before the agent does
	s.wg.Wait()
	if err := s.client.Shutdown(ctx, true); err != nil {
		return err
	}
	if err := waitProcesses(ctx, info.PID, info.WatchdogPID); err != nil {
		return err
	}
	term.say("%s", term.errStyle.green("all stopped."))
	return nil
}
