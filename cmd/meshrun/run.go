package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// runPause is the time between two looks at a run that is waited for: it may take
// hours.
const runPause = 500 * time.Millisecond

// runNow starts a run of a process.
type runNow struct {
	operate
	target string
}

func runCommand(term *terminal) *cobra.Command {
	c := &runNow{operate: operate{term: term, place: place{term: term}}}
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] JOB/PROCESS",
		Short: "Run a process now that has a schedule, or ends by itself",
		Long: "run starts one run beside those of the schedule. It is skipped if another one is under way, unless they\n" +
			"may overlap. With -wait it is followed, and the exit code is 0 if it succeeds and 1 if not.\n" +
			"A process without a schedule that ends by itself is restarted.",
		Example:           "  meshrun run -wait reports/nightly",
		Args:              arguments(1, 1, "what to run: JOB/PROCESS"),
		ValidArgsFunction: completeTargets(&c.place, processesOnly),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.target = args[0]
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	c.waitFlags(cmd)
	cmd.Flags().Lookup("wait").Usage = "follow the run to its end"
	cmd.Flags().Lookup("timeout").Usage = "the longest that -wait may take (default: as long as the run does; 5m without a schedule)"
	cmd.Flags().Lookup("json").Usage = "print what was ordered as JSON"
	neverAsks(cmd)
	return cmd
}

// Run orders the run and, if that is wanted, follows it.
func (c *runNow) Run(ctx context.Context) error {
	target, err := api.ParseTarget(c.target)
	if err != nil {
		return err
	}
	if target.Process == "" || target.Shard >= 0 {
		return &usageError{err: fmt.Errorf("%q is not a process: name one as JOB/PROCESS", c.target), command: "meshrun run"}
	}
	req, err := orders(spec.OpRun, []string{c.target})
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := c.look(ctx, client); err != nil {
		return err
	}
	p, result, err := submit(ctx, client, req)
	if err != nil {
		return err
	}
	id := runID(&p, target)
	switch {
	case c.json:
		err = c.term.json(result)
	case id == "":
		narrow(&p, &req)
		err = c.term.print(orderText(&p, c.term.outStyle))
	default:
		err = c.term.print(fmt.Sprintf("%s: run %s is asked for; see `meshrun runs %s`\n", c.target, id, c.target))
	}
	switch {
	case err != nil:
		return err
	case id == "":
		return c.follow(ctx, c.term, client, &p)
	case !c.wait:
		return nil
	}
	return c.await(ctx, client, target, id)
}

// runID returns the run that a plan asks for, "" if it asks for none.
func runID(p *spec.Plan, target api.Target) string {
	for _, j := range p.Jobs {
		if j.Job == target.Job && j.Wanted != nil && j.Wanted.Orders[target.Process].Runs > 0 {
			return spec.ManualRun + strconv.FormatUint(j.Wanted.Orders[target.Process].Runs, 10)
		}
	}
	return ""
}

// await follows a run to its end.
func (c *runNow) await(ctx context.Context, client *api.Client, target api.Target, id string) error {
	if c.timeout > 0 {
		bounded, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		ctx = bounded
	}
	for {
		runs, err := client.Runs(ctx, target.Job)
		if err != nil && !passing(err) && ctx.Err() == nil {
			return err
		}
		for i := range runs {
			run := &runs[i]
			if run.Process != target.Process || run.ID != id || run.State == spec.RunActive {
				continue
			}
			if run.State == spec.RunSucceeded {
				c.term.say("%s", c.term.errStyle.green("The run has succeeded."))
				return nil
			}
			why := cmp.Or(run.Why(), "its exit is not known")
			if run.State == spec.RunSkipped {
				return fmt.Errorf("run %s of %s was skipped: %s: try again, see `meshrun runs %s`", id, c.target, why, c.target)
			}
			return fmt.Errorf("run %s of %s has failed: %s: see `meshrun logs %s`", id, c.target, why, c.target)
		}
		if pause(ctx, runPause); ctx.Err() != nil {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("after %s run %s of %s has not ended, and goes on: see `meshrun runs %s`, or wait longer with -timeout", ago(c.timeout), id, c.target, c.target)
			}
			return ctx.Err()
		}
	}
}

// runsList lists runs.
type runsList struct {
	place
	term   *terminal
	target string
	json   bool
}

func runsCommand(term *terminal) *cobra.Command {
	c := &runsList{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:               "runs [OPTIONS] JOB[/PROCESS]",
		Short:             "List the runs of processes that have a schedule, with how they ended",
		Args:              arguments(1, 1, "whose runs: JOB or JOB/PROCESS"),
		ValidArgsFunction: completeTargets(&c.place, processesOnly),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.target = args[0]
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	cmd.Flags().BoolVar(&c.json, "json", false, "print as JSON")
	return cmd
}

// Run prints the runs, the oldest first.
func (c *runsList) Run(ctx context.Context) error {
	target, err := api.ParseTarget(c.target)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	all, err := client.Runs(ctx, target.Job)
	if err != nil {
		return err
	}
	runs := []spec.Run{}
	for _, run := range all {
		if target.Process == "" || run.Process == target.Process {
			runs = append(runs, run)
		}
	}
	if c.json {
		return c.term.json(runs)
	}
	if len(runs) == 0 {
		return c.none(ctx, client, target)
	}
	return c.term.print(renderRuns(runs, c.term.outStyle, c.term.now()))
}

// none says why there are no runs of a target.
func (c *runsList) none(ctx context.Context, client *api.Client, target api.Target) error {
	job, err := client.Job(ctx, target.Job)
	if err != nil {
		return err
	}
	if !wanted([]spec.JobVersion{job}, target) {
		return api.Errorf(api.ErrNotFound, "no %s: `meshrun status %s` lists what there is", named(target), target.Job)
	}
	for i := range job.Job.Processes {
		if p := &job.Job.Processes[i]; p.Schedule != nil && (target.Process == "" || target.Process == p.Name) {
			return c.term.print(fmt.Sprintf("No run yet. `meshrun status %s` shows when the next one is due.\n", target.Job))
		}
	}
	return c.term.print(fmt.Sprintf("%s has no schedule, so there are no runs: `meshrun status %s` shows what runs, or how it ended.\n", target, target))
}

func renderRuns(runs []spec.Run, s style, now time.Time) string {
	var t table
	t.head(s, "PROCESS", "RUN", "DUE", "NODE", "STATE", "TOOK", "EXIT", "WHY")
	for i := range runs {
		r := &runs[i]
		took, exit := "", ""
		switch {
		case r.State == spec.RunActive:
			took = ago(now.Sub(r.Began))
		case r.State != spec.RunSkipped:
			took = ago(max(0, r.Ended.Sub(r.Began)))
		}
		if r.Exit != nil && r.Exit.Signal == "" && !r.Exit.Unknown && r.Exit.Error == "" {
			exit = strconv.Itoa(r.Exit.Code)
		}
		t.add(cell{text: r.Process}, cell{text: r.ID}, cell{text: r.Tick.In(now.Location()).Format("2006-01-02 15:04:05 MST")}, cell{text: r.Node},
			cell{text: string(r.State), paint: runPaint(r.State, s)}, cell{text: took, right: true}, cell{text: exit, right: true},
			cell{text: oneLine(r.Why()), paint: s.dim})
	}
	return t.String()
}

func runPaint(state spec.RunState, s style) func(string) string {
	switch state {
	case spec.RunActive, spec.RunSucceeded:
		return s.green
	case spec.RunFailed:
		return s.red
	default:
		return s.yellow
	}
}

// scheduleText says when a process runs next, and how its last run ended.
func scheduleText(p *spec.Process, runs []spec.Run, now time.Time) string {
	var parts []string
	if cron, err := spec.ParseCron(p.Schedule.Cron, p.Schedule.TimeZone); err == nil {
		if next := cron.Next(now); !next.IsZero() {
			parts = append(parts, "next run at "+next.Format("2006-01-02 15:04 MST"))
		}
	}
	for i := len(runs) - 1; i >= 0; i-- {
		if r := &runs[i]; r.Process == p.Name && (r.State == spec.RunSucceeded || r.State == spec.RunFailed) {
			last := fmt.Sprintf("the last %s %s ago", r.State, ago(now.Sub(r.Ended)))
			if why := r.Why(); why != "" {
				last += " (" + oneLine(why) + ")"
			}
			parts = append(parts, last)
			break
		}
	}
	return strings.Join(parts, "; ")
}

// readRuns reads the runs of the jobs that have schedules.
func (v *statusView) readRuns(ctx context.Context, client *api.Client) error {
	for i := range v.Jobs {
		job := &v.Jobs[i].Job
		if !slices.ContainsFunc(job.Processes, func(p spec.Process) bool { return p.Schedule != nil }) {
			continue
		}
		runs, err := client.Runs(ctx, job.Name)
		if errors.Is(err, api.ErrNotFound) {
			continue // it was removed just now
		}
		if err != nil {
			return err
		}
		if v.Runs == nil {
			v.Runs = map[string][]spec.Run{}
		}
		v.Runs[job.Name] = runs
	}
	return nil
}
