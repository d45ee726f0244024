package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
)

// rollback brings an earlier version of a job back.
type rollback struct {
	place
	applying
	term *terminal
	job  string
	// version is a number, or empty for the last one that is another definition.
	version string
	// good is set for the last version that was rolled out completely.
	good bool
}

func rollbackCommand(term *terminal) *cobra.Command {
	c := &rollback{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:   "rollback [OPTIONS] JOB [VERSION]",
		Short: "Bring an earlier version of a job back",
		Long: "rollback plans an earlier version of a job (without VERSION, the last one that defined it otherwise than\n" +
			"now), shows the plan, asks, and applies it as a new version. `meshrun history JOB` lists the versions.",
		Example:           "  meshrun rollback shop 3",
		Args:              arguments(1, 2, "the job, and the version if it isn't the last other one"),
		ValidArgsFunction: completeTargets(&c.place, jobsOnly),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.job = args[0]
			if len(args) > 1 {
				c.version = args[1]
			}
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	c.applying.flags(cmd)
	return cmd
}

func revertCommand(term *terminal) *cobra.Command {
	c := &rollback{term: term, place: place{term: term}, good: true}
	cmd := &cobra.Command{
		Use:   "revert [OPTIONS] JOB",
		Short: "Take a rollout back to the last good version",
		Long: "revert plans the last version of a job that was rolled out completely (if none is known, the one before),\n" +
			"shows the plan, asks, and applies it as a new version, which also ends a rollout that is stuck, paused or\n" +
			"on trial. `meshrun rollback` goes to any version.",
		Example:           "  meshrun revert -yes -wait shop",
		Args:              arguments(1, 1, "the name of a job"),
		ValidArgsFunction: completeTargets(&c.place, jobsOnly),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.job = args[0]
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	c.applying.flags(cmd)
	return cmd
}

// Run plans, asks and applies.
func (c *rollback) Run(ctx context.Context) error {
	command := "rollback"
	if c.good {
		command = "revert"
	}
	if err := wholeJob(command, c.job); err != nil {
		return err
	}
	back := api.Rollback{Job: c.job, Good: c.good}
	if c.version != "" {
		n, err := strconv.ParseUint(c.version, 10, 64)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is not a version: `meshrun history %s` lists them", c.version, c.job)
		}
		back.Version = n
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := c.look(ctx, client); err != nil {
		return err
	}
	p, err := client.Plan(ctx, api.PlanRequest{Rollbacks: []api.Rollback{back}})
	if err != nil {
		return err
	}
	return c.agree(ctx, c.term, client, &p)
}
