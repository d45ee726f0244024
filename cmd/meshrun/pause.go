package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// steer is an order about rollouts: pause, resume, promote.
type steer struct {
	operate
	op      spec.Op
	targets []string
}

func pauseCommand(term *terminal) *cobra.Command {
	return steerCommand(term, spec.OpPause, "Hold a rollout where it is",
		"pause leaves every shard at the definition that it has now, through whatever is applied, until the rollout is\n"+
			"resumed, or taken back by `meshrun revert`. What crashes is still restarted, and shards still move.")
}

func resumeCommand(term *terminal) *cobra.Command {
	return steerCommand(term, spec.OpResume, "Let a paused rollout go on", "resume ends what pause began.")
}

func promoteCommand(term *terminal) *cobra.Command {
	return steerCommand(term, spec.OpPromote, "Let the other shards follow the canaries",
		"promote ends the trial of a new version: the shards that waited for that follow, as the update block lets\n"+
			"them. Until then, `meshrun revert` takes the version back.")
}

func steerCommand(term *terminal, op spec.Op, short, long string) *cobra.Command {
	c := &steer{op: op, operate: operate{term: term, place: place{term: term}}}
	cmd := &cobra.Command{
		Use:               string(op) + " [OPTIONS] JOB[/PROCESS]…",
		Short:             short,
		Long:              long,
		Example:           "  meshrun " + string(op) + " shop/web",
		Args:              arguments(1, -1, "whose rollout: JOB or JOB/PROCESS"),
		ValidArgsFunction: completeTargets(&c.place, processesOnly),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.targets = args
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	if op == spec.OpPause {
		cmd.Flags().BoolVar(&c.json, "json", false, "print what was applied as JSON")
	} else {
		c.waitFlags(cmd)
	}
	return cmd
}

// Run orders it and says what happens now.
func (c *steer) Run(ctx context.Context) error {
	req, err := orders(c.op, c.targets)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if c.op == spec.OpPromote {
		if err := promotable(ctx, client, req); err != nil {
			return err
		}
	}
	p, result, err := submit(ctx, client, req)
	if err != nil {
		return err
	}
	if c.json {
		if err := c.term.json(result); err != nil {
			return err
		}
	} else if err := c.say(ctx, client, req); err != nil {
		return err
	}
	return c.follow(ctx, c.term, client, &p)
}

// beginsWithin is how long a rollout of a new version is waited for to begin.
const beginsWithin = 3 * time.Second

// say tells what happens now to the rollouts that were named.
func (c *steer) say(ctx context.Context, client *api.Client, req api.PlanRequest) error {
	for _, o := range req.Orders {
		target, err := api.ParseTarget(o.Target)
		if err != nil {
			return err
		}
		s, err := begun(ctx, client, target.Job)
		if err != nil {
			return err
		}
		if len(s.Progress) == 0 {
			if err := c.term.print(fmt.Sprintf("%s: %s\n", o.Target, nothingToSteer(c.op))); err != nil {
				return err
			}
			continue
		}
		for i := range s.Progress {
			if p := &s.Progress[i]; target.Process == "" || target.Process == p.Process {
				text := fmt.Sprintf("%s/%s: %s\n", s.Job, p.Process, steered(c.op, s.Job, p))
				if err := c.term.print(text); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// promotable refuses to promote what has failed: the other shards would follow
// into the same.
func promotable(ctx context.Context, client *api.Client, req api.PlanRequest) error {
	for _, o := range req.Orders {
		target, err := api.ParseTarget(o.Target)
		if err != nil {
			return err
		}
		s, err := begun(ctx, client, target.Job)
		if errors.Is(err, api.ErrNotFound) {
			continue // the order itself is told so
		}
		if err != nil {
			return err
		}
		for i := range s.Progress {
			p := &s.Progress[i]
			if (target.Process == "" || target.Process == p.Process) && p.State == spec.RolloutFailed && p.Updated < p.Wanted {
				return fmt.Errorf("%s/%s is not promoted: version %d has failed: %s; %s", s.Job, p.Process, s.Version, oneLine(p.Waits), rolloutHint(&s))
			}
		}
	}
	return nil
}

// begun returns the status of a job once it tells of its processes, which it
// does as soon as the present version has been placed.
func begun(ctx context.Context, client *api.Client, job string) (api.RolloutStatus, error) {
	soon, cancel := context.WithTimeout(ctx, beginsWithin)
	defer cancel()
	s, err := client.Rollout(ctx, job, "")
	for err == nil && s.Rollout != nil && len(s.Progress) == 0 {
		var next api.RolloutStatus
		if next, err = client.Rollout(soon, job, s.Tag); err == nil {
			s = next
		} else if errors.Is(soon.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
			return s, nil
		}
	}
	return s, err
}

// nothingToSteer says why an order about a rollout does nothing.
func nothingToSteer(op spec.Op) string {
	switch op {
	case spec.OpPromote:
		return "nothing waits to be promoted"
	case spec.OpPause:
		return "paused, until it is resumed"
	}
	return "nothing is being rolled out"
}

// steered says what happens to a process after an order about its rollout.
func steered(op spec.Op, job string, p *spec.Progress) string {
	left := p.Wanted - p.Updated
	switch {
	case p.State == spec.RolloutDone && op == spec.OpPromote:
		return fmt.Sprintf("nothing waits to be promoted: %s as wanted", isAre(p.Wanted))
	case op == spec.OpPause && (p.State == spec.RolloutDone || left == 0):
		return fmt.Sprintf("paused: nothing is being rolled out, and what is applied waits for `meshrun resume %s/%s`", job, p.Process)
	case p.State == spec.RolloutDone:
		return fmt.Sprintf("nothing is being rolled out: %s as wanted", isAre(p.Wanted))
	case op == spec.OpPause:
		return fmt.Sprintf("paused, with %s; go on with `meshrun resume %s/%s`, go back with `meshrun revert %s`", counts(p), job, p.Process, job)
	case op == spec.OpPromote && p.State == spec.RolloutPaused && left > 0:
		return fmt.Sprintf("promoted; it is paused: the other %s after `meshrun resume %s/%s`", follows(left), job, p.Process)
	case op == spec.OpPromote && p.State == spec.RolloutFailed && left == 0:
		return "nothing waits to be promoted: all shards are updated, and it has failed: " + oneLine(p.Waits)
	case p.State == spec.RolloutWaiting || p.State == spec.RolloutFailed || p.State == spec.RolloutPaused:
		return oneLine(p.Waits)
	case op == spec.OpPromote && left > 0:
		return fmt.Sprintf("promoted; the other %s, with %s now", follows(left), counts(p))
	default:
		return "goes on, with " + progressOf(p)
	}
}

func progressOf(p *spec.Progress) string {
	if p.Waits == "" {
		return counts(p)
	}
	return counts(p) + "; " + oneLine(p.Waits)
}

func isAre(n int) string {
	if n == 1 {
		return "its one shard is"
	}
	return fmt.Sprintf("all %d shards are", n)
}

func follows(n int) string {
	if n == 1 {
		return "shard follows"
	}
	return fmt.Sprintf("%d shards follow", n)
}
