package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// operate is an order that is done at once: restart, stop, scale. The target
// was typed by its name, so it is not asked for again; what happens is shown.
type operate struct {
	place
	applying
	term *terminal
}

// maxRetries is how often an order that somebody else's change has overtaken
// is planned again: unlike a plan that a person has read, it means the same.
const maxRetries = 5

// neverAsks lets a command that does not ask take the -yes of those that do.
func neverAsks(cmd *cobra.Command) {
	cmd.Flags().Bool("yes", false, "nothing: it does not ask")
	cmd.Flags().Lookup("yes").Hidden = true
}

// run plans the request and applies it.
func (o *operate) run(ctx context.Context, req api.PlanRequest) error {
	client, err := o.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := o.look(ctx, client); err != nil {
		return err
	}
	p, result, err := submit(ctx, client, req)
	if err != nil {
		return err
	}
	narrow(&p, &req)
	if o.json {
		if err := o.term.json(result); err != nil {
			return err
		}
	} else if err := o.term.print(orderText(&p, o.term.outStyle)); err != nil {
		return err
	}
	return o.follow(ctx, o.term, client, &p)
}

// submit plans a request and applies it, again if somebody else's change has
// overtaken it.
func submit(ctx context.Context, client *api.Client, req api.PlanRequest) (p spec.Plan, result api.ApplyResult, err error) {
	for range maxRetries {
		if p, err = client.Plan(ctx, req); err != nil {
			return p, result, err
		}
		result = api.ApplyResult{Index: p.Index, Applied: []string{}}
		if p.Empty() {
			return p, result, nil
		}
		if result, err = client.Apply(ctx, p); !errors.Is(err, api.ErrStale) {
			break
		}
	}
	return p, result, err
}

// narrow leaves out of a plan what earlier changes still do to other instances
// than those that were asked for.
func narrow(p *spec.Plan, req *api.PlanRequest) {
	var targets []api.Target
	for _, o := range req.Orders {
		if t, err := api.ParseTarget(o.Target); err == nil {
			targets = append(targets, t)
		}
	}
	for _, job := range req.Remove {
		targets = append(targets, api.Target{Job: job, Shard: -1})
	}
	one := slices.ContainsFunc(targets, func(t api.Target) bool { return t.Shard >= 0 })
	for i := range p.Jobs {
		p.Jobs[i].Steps = p.Jobs[i].Steps && !one // a shard is waited for, and not all of a rollout
		p.Jobs[i].Instances = slices.DeleteFunc(p.Jobs[i].Instances, func(i spec.InstancePlan) bool {
			return !slices.ContainsFunc(targets, func(t api.Target) bool { return t.Matches(i.ID) })
		})
	}
}

// orderText tells in a line per group of instances what an order does.
func orderText(p *spec.Plan, s style) string {
	var b strings.Builder
	for i := range p.Jobs {
		renderInstances(&b, p.Jobs[i].Instances, s, nodesOf(p) > 1)
	}
	text := strings.TrimPrefix(b.String(), "\n")
	switch {
	case p.Empty():
		return "No changes.\n"
	case text == "":
		return fmt.Sprintf("Done: %s. No instance is affected.\n", appliedText(p))
	}
	return text
}
