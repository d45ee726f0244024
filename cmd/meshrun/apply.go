package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// defaultTimeout bounds -wait where nothing else does.
const defaultTimeout = 5 * time.Minute

// apply makes it so.
type apply struct {
	place
	sources
	term *terminal
	args []string
	applying
}

// applying is how a plan is shown, agreed on and followed.
type applying struct {
	yes, wait, json bool
	timeout         time.Duration
	// before is what was seen before the plan was made, if wait is set.
	before []spec.Instance
}

func (a *applying) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.yes, "yes", false, "apply without asking")
	a.waitFlags(cmd)
}

func (a *applying) waitFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.wait, "wait", false, "follow the instances until all run, batch processes to their end, and rollouts until they are done")
	cmd.Flags().DurationVar(&a.timeout, "timeout", 0, "the longest that -wait may take (default 5m; of a rollout in steps, as long as its own deadlines let it)")
	cmd.Flags().BoolVar(&a.json, "json", false, "print what was applied as JSON")
}

func applyCommand(term *terminal) *cobra.Command {
	c := &apply{term: term, place: place{term: term}, sources: sources{term: term}}
	cmd := &cobra.Command{
		Use:   "apply [OPTIONS] PATH… | PLANFILE",
		Short: "Make it so",
		Long: "apply shows the plan, asks, and does it; with -yes it shows what was done. With a file that\n" +
			"`meshrun plan -out` saved, it does exactly what that plan says, or refuses if anything has moved since.\n\n" +
			"With -wait it stays until everything that the plan starts or changes is up. The exit code is 0 then, 1 if something failed or was reverted,\n" +
			"and 3 if a rollout waits for somebody: to promote its canaries, or to resume it.",
		Example: "  meshrun apply jobs/\n  meshrun apply -yes -wait jobs/shop.hcl",
		Args:    arguments(1, -1, "the files or directories to apply, or a saved plan"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.args = args
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	c.sources.flags(cmd)
	c.applying.flags(cmd)
	return cmd
}

// Run plans, asks and applies.
func (c *apply) Run(ctx context.Context) error {
	saved, err := readPlan(c.args)
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
	if saved != nil {
		if len(c.vars)+len(c.varFiles) > 0 {
			return errors.New("a saved plan has its values in it: -var and -var-file are for `meshrun plan`")
		}
		return c.agree(ctx, c.term, client, saved)
	}
	cfg, err := c.load(c.args)
	if err != nil {
		return err
	}
	req, err := planRequest(cfg, c.args)
	if err != nil {
		return err
	}
	if c.yes {
		return c.doUnseen(ctx, c.term, client, req)
	}
	p, err := client.Plan(ctx, req)
	if err != nil {
		return err
	}
	return c.agree(ctx, c.term, client, &p)
}

// maxPlanFile bounds a saved plan.
const maxPlanFile = 256 << 20

// readPlan returns the saved plan that the arguments name, or nil if they
// don't name one.
func readPlan(args []string) (*spec.Plan, error) {
	if len(args) != 1 || strings.HasSuffix(args[0], ".hcl") {
		return nil, nil
	}
	info, err := os.Stat(args[0])
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil // job files, or a fault that reading them tells better
	}
	f, err := os.Open(args[0])
	if err != nil {
		return nil, fmt.Errorf("read plan: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPlanFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read plan: %w", err)
	case len(data) > maxPlanFile:
		return nil, fmt.Errorf("read plan: %s is larger than any plan", args[0])
	case !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")):
		return nil, nil
	}
	p := new(spec.Plan)
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("read plan %s: %w: save it again with `meshrun plan -out`", args[0], err)
	}
	if p.Format != spec.PlanFormat {
		return nil, fmt.Errorf("read plan %s: it has format %d, and this version knows %d: save it again with `meshrun plan -out`",
			args[0], p.Format, spec.PlanFormat)
	}
	return p, nil
}

// look notes what is there before a plan is made, for -wait to know the new
// from the old.
func (a *applying) look(ctx context.Context, client *api.Client) error {
	if !a.wait {
		return nil
	}
	var err error
	a.before, _, err = client.Instances(ctx, 0)
	return err
}

// agree shows the plan, asks whether to do it, and does it.
func (a *applying) agree(ctx context.Context, term *terminal, client *api.Client, p *spec.Plan) error {
	if err := a.show(term, p); err != nil {
		return err
	}
	if p.Empty() {
		if a.json {
			return term.json(api.ApplyResult{Index: p.Index, Applied: []string{}})
		}
		return a.follow(ctx, term, client, p)
	}
	if !a.yes {
		if err := ask(ctx, term, "Apply these changes? (yes/no)"); err != nil {
			return err
		}
	}
	return a.do(ctx, term, client, p)
}

func (a *applying) show(term *terminal, p *spec.Plan) error {
	if a.json {
		return nil
	}
	return term.print(renderPlan(p, term.outStyle))
}

// doUnseen plans and applies in one call, and shows both afterwards.
func (a *applying) doUnseen(ctx context.Context, term *terminal, client *api.Client, req api.PlanRequest) error {
	done, err := client.PlanAndApply(ctx, req)
	if err != nil {
		return staleText(err)
	}
	if err := a.show(term, &done.Plan); err != nil {
		return err
	}
	if done.Plan.Empty() && !a.json {
		return a.follow(ctx, term, client, &done.Plan)
	}
	return a.done(ctx, term, client, &done.Plan, done.Result)
}

// staleText adds to ErrStale what it means for the one who applied.
func staleText(err error) error {
	if errors.Is(err, api.ErrStale) {
		return fmt.Errorf("%w: somebody changed something after this plan was made; plan again to see what is left to do", err)
	}
	return err
}

// do applies the plan and follows it if that is wanted.
func (a *applying) do(ctx context.Context, term *terminal, client *api.Client, p *spec.Plan) error {
	result, err := client.Apply(ctx, *p)
	if err != nil {
		return staleText(err)
	}
	return a.done(ctx, term, client, p, result)
}

// done tells what was applied and follows it if that is wanted.
func (a *applying) done(ctx context.Context, term *terminal, client *api.Client, p *spec.Plan, result api.ApplyResult) error {
	if a.json {
		if err := term.json(result); err != nil {
			return err
		}
	} else {
		term.say("%s %s", term.errStyle.green("Applied:"), appliedText(p))
	}
	return a.follow(ctx, term, client, p)
}

func (a *applying) follow(ctx context.Context, term *terminal, client *api.Client, p *spec.Plan) error {
	if !a.wait {
		return nil
	}
	goals, rollouts := goalsOf(p, a.before), map[string]uint64{}
	for _, j := range p.Jobs {
		if j.Steps {
			rollouts[j.Job] = j.To
		}
	}
	// What shall run of a job in steps is its rollout's to tell.
	goals = slices.DeleteFunc(goals, func(g goal) bool {
		_, steps := rollouts[g.id.Job]
		return steps && !g.gone
	})
	r := rolloutFollower{term: term, client: client, versions: rollouts}
	if err := r.run(ctx, a.timeout); err != nil {
		return err
	}
	f := follower{term: term, client: client, goals: goals}
	if err := f.run(ctx, cmp.Or(a.timeout, defaultTimeout)); err != nil {
		return err
	}
	if text := refused(p); text != "" {
		return fmt.Errorf("apply: %s. Everything else is done; the shards start as soon as a node has room for them", text)
	}
	term.say("%s", term.errStyle.green("Done."))
	return nil
}

// refused tells of the shards of a plan that have no place, the first with the
// reason; "" if all have one.
func refused(p *spec.Plan) string {
	var first *spec.InstancePlan
	n := 0
	for i := range p.Jobs {
		for k := range p.Jobs[i].Instances {
			if in := &p.Jobs[i].Instances[k]; in.Action == spec.ActionRefuse {
				if n++; first == nil {
					first = in
				}
			}
		}
	}
	switch n {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("cannot place %s: %s", first.ID, first.Reason)
	}
	return fmt.Sprintf("cannot place %d shards, the first is %s: %s", n, first.ID, first.Reason)
}

// appliedText names the jobs of a plan that were changed, with their versions.
func appliedText(p *spec.Plan) string {
	var parts []string
	for _, j := range p.Jobs {
		switch j.Action {
		case spec.JobKeep:
		case spec.JobRemove:
			parts = append(parts, j.Job+" removed")
		default:
			parts = append(parts, fmt.Sprintf("%s version %d", j.Job, j.To))
		}
	}
	return strings.Join(parts, ", ")
}

// ask asks a person, and returns an error unless the answer is yes.
func ask(ctx context.Context, term *terminal, question string) error {
	if !term.interactive {
		return errors.New("there is no terminal to ask on: say -yes to apply without being asked")
	}
	term.mu.Lock()
	fmt.Fprintf(term.err, "\n%s ", term.errStyle.bold(question))
	term.mu.Unlock()
	answer := make(chan string, 1)
	// A read of a terminal cannot be interrupted; the process ends with it.
	go func() {
		line, _ := bufio.NewReader(io.LimitReader(term.in, 1024)).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		term.say("")
		return context.Cause(ctx)
	case text := <-answer:
		if text != "yes" && text != "y" {
			return errors.New("nothing was changed")
		}
		return nil
	}
}
