package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/spec"
)

// plan shows what an apply would do.
type plan struct {
	place
	sources
	term  *terminal
	paths []string
	out   string
	json  bool
}

func planCommand(term *terminal) *cobra.Command {
	c := &plan{term: term, place: place{term: term}, sources: sources{term: term}}
	cmd := &cobra.Command{
		Use:   "plan [OPTIONS] PATH…",
		Short: "Show what apply would change, and which instances it would touch",
		Long: "plan compares what the files in PATH say with what runs, and shows the difference: every changed\n" +
			"value, and which instance starts, stops, restarts or stays, and why. It changes nothing.\n\n" +
			"The exit code is 0 if there is nothing to do, 2 if there are changes, 1 on an error.",
		Example: "  meshrun plan jobs/\n  meshrun plan -out today.plan jobs/ && meshrun apply today.plan",
		Args:    arguments(1, -1, "the files or directories to plan"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.paths = args
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	c.sources.flags(cmd)
	cmd.Flags().StringVar(&c.out, "out", "", "save the plan to a `file` that apply takes")
	cmd.Flags().BoolVar(&c.json, "json", false, "print the plan as JSON")
	return cmd
}

// Run plans and prints. The exit code 2 is exitCode(2).
func (c *plan) Run(ctx context.Context) error {
	cfg, err := c.load(c.paths)
	if err != nil {
		return err
	}
	req, err := planRequest(cfg, c.paths)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	p, err := client.Plan(ctx, req)
	if err != nil {
		return err
	}
	if c.out != "" {
		if err := savePlan(c.out, &p); err != nil {
			return err
		}
		c.term.say("Saved the plan. To do exactly this: meshrun apply %s", c.out)
	}
	if c.json {
		err = c.term.json(p)
	} else {
		err = c.term.print(renderPlan(&p, c.term.outStyle))
	}
	if err == nil && !p.Empty() {
		err = exitCode(2)
	}
	return err
}

// savePlan writes a plan for a later apply. Only its owner may read it.
func savePlan(path string, p *spec.Plan) error {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("encode plan: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("save plan: %w", err)
	}
	defer os.Remove(tmp.Name()) // a no-op once it has its final name
	_, err = tmp.Write(append(data, '\n'))
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("save plan: %w", err)
	}
	return nil
}
