package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// status shows what runs.
type status struct {
	place
	term             *terminal
	targets          targets
	json, watch, all bool
}

func statusCommand(term *terminal) *cobra.Command {
	c := &status{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:               "status [OPTIONS] [JOB[/PROCESS[/SHARD]]]…",
		Short:             "Show what runs, since when, and what is wrong",
		Example:           "  meshrun status\n  meshrun status -watch shop/web",
		Args:              arguments(0, -1, ""),
		ValidArgsFunction: completeTargets(&c.place, everyWord),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, text := range args {
				target, err := api.ParseTarget(text)
				if err != nil {
					return err
				}
				c.targets = append(c.targets, target)
			}
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	cmd.Flags().BoolVar(&c.json, "json", false, "print as JSON")
	cmd.Flags().BoolVarP(&c.watch, "watch", "w", false, "stay, and show every change")
	cmd.Flags().BoolVarP(&c.all, "all", "a", false, "show every shard, also of processes with many")
	return cmd
}

// statusView is what status shows; its JSON is what -json prints.
type statusView struct {
	Agent     api.Info          `json:"agent"`
	Jobs      []spec.JobVersion `json:"jobs"`
	Instances []spec.Instance   `json:"instances"`
	// Rollouts are those that aren't done.
	Rollouts []api.RolloutStatus `json:"rollouts,omitempty"`
	// Placements are those with shards that no node can take, or that have used up
	// their restarts on a node.
	Placements []spec.Placement `json:"placements,omitempty"`
	// Runs are those of the jobs' scheduled processes, by job.
	Runs map[string][]spec.Run `json:"runs,omitempty"`
	// JobsUnknown is set if what is wanted could not be read.
	JobsUnknown bool `json:"jobs_unknown,omitempty"`
}

// Run shows the status once, or until the context ends.
func (c *status) Run(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if c.watch {
		return c.follow(ctx, client)
	}
	view, err := c.once(ctx, client)
	if err != nil {
		return err
	}
	if c.json {
		return c.term.json(view)
	}
	return c.term.print(renderStatus(view, c.options()))
}

// mostRestart is longer than a watchdog needs to start an agent again that was
// killed. It is a variable for its test, which a busy machine may hold up longer.
var mostRestart = 2 * time.Second

// once looks at what there is now. An agent that is just being started again is
// waited for.
func (c *status) once(ctx context.Context, client *api.Client) (*statusView, error) {
	away := absence{since: time.Now(), pause: 10 * time.Millisecond, most: mostRestart}
	for {
		instances, _, err := client.Instances(ctx, 0)
		var view *statusView
		if err == nil {
			view, err = c.view(ctx, client, instances)
		}
		if !passing(err) {
			return view, err
		}
		if err := away.wait(ctx, err); err != nil {
			return nil, err
		}
	}
}

func (c *status) options() statusOptions {
	return statusOptions{style: c.term.outStyle, now: c.term.now(), all: c.all, targets: c.targets}
}

// view gathers what is shown of the targets.
func (c *status) view(ctx context.Context, client *api.Client, instances []spec.Instance) (*statusView, error) {
	info, err := client.Info(ctx)
	if err != nil {
		return nil, err
	}
	jobs, err := client.Jobs(ctx)
	unknown := errors.Is(err, api.ErrUnavailable)
	if unknown {
		// Just then people want to know what still runs.
		info.Problems = append(info.Problems, fmt.Sprintf("what is wanted cannot be read now; this is what runs: %v", err))
		err = nil
	}
	if err != nil {
		return nil, err
	}
	info.Problems = append(info.Problems, circles(jobs)...)
	v := &statusView{Agent: info, Jobs: []spec.JobVersion{}, Instances: []spec.Instance{}, JobsUnknown: unknown}
	for _, j := range jobs {
		if c.targets.job(j.Job.Name) {
			v.Jobs = append(v.Jobs, j)
		}
	}
	for _, i := range instances {
		if c.targets.match(i.ID) {
			v.Instances = append(v.Instances, i)
		}
	}
	if !unknown {
		if v.Rollouts, err = unfinished(ctx, client, v.Jobs); err != nil {
			return nil, err
		}
		if err := v.readPlacements(ctx, client); err != nil {
			return nil, err
		}
	}
	if err := v.readRuns(ctx, client); err != nil {
		return nil, err
	}
	for _, t := range c.targets {
		if !wanted(v.Jobs, t) && !slices.ContainsFunc(v.Instances, func(i spec.Instance) bool { return t.Matches(i.ID) }) {
			return nil, api.Errorf(api.ErrNotFound, "no %s: `meshrun status` lists what there is", named(t))
		}
	}
	return v, nil
}

// circles tells of jobs that wait for each other. A plan refuses those; two that
// were made at the same time may not have known of each other.
func circles(jobs []spec.JobVersion) []string {
	byName := make(map[string]*spec.Job, len(jobs))
	for i := range jobs {
		byName[jobs[i].Job.Name] = &jobs[i].Job
	}
	var out []string
	for _, c := range spec.Circles(byName) {
		out = append(out, c.String())
	}
	return out
}

// follow shows every change. On a terminal it draws over the last picture, and
// the ages go on by a clock of its own, without asking the agent.
func (c *status) follow(ctx context.Context, client *api.Client) error {
	views, failed := make(chan *statusView), make(chan error, 1)
	feeding, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		failed <- c.feed(feeding, client, views)
	}()
	defer func() { cancel(); <-ended }()
	screen := newScreen(c.term)
	defer screen.close()
	ticks := make(<-chan time.Time)
	if screen.live {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		ticks = ticker.C
	}
	var view *statusView
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case view = <-views:
			if c.json {
				if err := c.term.jsonLine(view); err != nil {
					return err
				}
				continue
			}
		case <-ticks:
		}
		if view != nil && !c.json {
			if err := screen.draw(renderStatus(view, c.options())); err != nil {
				return err
			}
		}
	}
}

// feed sends a view whenever the instances, or a rollout that isn't done, have
// changed.
func (c *status) feed(ctx context.Context, client *api.Client, views chan<- *statusView) error {
	ctx, cancel := context.WithCancelCause(ctx)
	f := &statusFeed{status: c, client: client, views: views, lists: make(chan []spec.Instance), moved: make(chan struct{}, 1)}
	away := &absence{begun: func() { f.send(ctx, nil) }}
	f.tasks.Go(func() {
		err := watchInstances(ctx, client, away, func(list []spec.Instance) bool {
			select {
			case f.lists <- list:
				return true
			case <-ctx.Done():
				return false
			}
		})
		cancel(err)
	})
	defer f.tasks.Wait()
	err := f.run(ctx)
	cancel(err)
	return err
}

// statusFeed makes a view of what has changed.
type statusFeed struct {
	*status
	client *api.Client
	views  chan<- *statusView

	lists chan []spec.Instance
	moved chan struct{} // a rollout has; holds one
	tasks sync.WaitGroup

	mu   sync.Mutex // guards last
	last *statusView
}

// run sends views until the context ends.
func (f *statusFeed) run(ctx context.Context) error {
	var instances []spec.Instance
	begun, stop := false, func() {}
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case instances = <-f.lists:
			begun = true
		case <-f.moved:
		}
		if !begun {
			continue
		}
		view, err := f.view(ctx, f.client, instances)
		if passing(err) || errors.Is(err, api.ErrNotFound) {
			// Between two agents, or before the target exists, the last
			// picture stays; the next change draws a new one.
			continue
		}
		if err != nil {
			return err
		}
		f.send(ctx, view)
		stop() // whatever was awaited is looked at anew
		stop = f.await(ctx, view.Rollouts)
	}
}

// await pokes as soon as one of the rollouts is another one than it was, until
// it is told to stop.
func (f *statusFeed) await(ctx context.Context, rollouts []api.RolloutStatus) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	for i := range rollouts[:min(len(rollouts), maxFollowed)] {
		r := &rollouts[i]
		f.tasks.Go(func() {
			if pause(ctx, rolloutPause) != nil {
				return
			}
			if _, err := f.client.Rollout(ctx, r.Job, r.Tag); ctx.Err() == nil && !passing(err) {
				f.poke()
			}
		})
	}
	return cancel
}

// poke asks for another view.
func (f *statusFeed) poke() {
	select {
	case f.moved <- struct{}{}:
	default:
	}
}

// send hands a view over; nil is the last one while the agent does not answer.
func (f *statusFeed) send(ctx context.Context, view *statusView) {
	f.mu.Lock()
	if view == nil && f.last != nil {
		old := *f.last
		old.Agent.Problems = []string{"the agent does not answer: this is what it said last; waiting for it"}
		view = &old
	} else if view != nil {
		f.last = view
	}
	f.mu.Unlock()
	if view == nil {
		return
	}
	select {
	case f.views <- view:
	case <-ctx.Done():
	}
}

// pause waits for a while, and returns why if the context ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// named says what a target names, as in `no job named "shop"`.
func named(t api.Target) string {
	switch {
	case t.Shard >= 0:
		return "shard " + t.String()
	case t.Process != "":
		return fmt.Sprintf("process named %q", t)
	}
	return fmt.Sprintf("job named %q", t)
}
