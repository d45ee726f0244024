package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// stop keeps instances down, or forgets whole jobs.
type stop struct {
	operate
	targets []string
	purge   bool
}

func stopCommand(term *terminal) *cobra.Command {
	c := &stop{operate: operate{term: term, place: place{term: term}}}
	cmd := &cobra.Command{
		Use:   "stop [OPTIONS] JOB[/PROCESS[/SHARD]]…",
		Short: "Stop a job, a process or one shard",
		Long: "stop ends instances by their stop block, dependents first, and keeps them down until they are restarted\n" +
			"or the job is applied again. With -purge, the job itself is removed; its history is kept.",
		Example:           "  meshrun stop shop/mailer\n  meshrun stop -purge shop",
		Args:              arguments(1, -1, "what to stop: JOB, JOB/PROCESS or JOB/PROCESS/SHARD"),
		ValidArgsFunction: completeTargets(&c.place, everyWord),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.targets = args
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	c.waitFlags(cmd)
	neverAsks(cmd)
	cmd.Flags().BoolVar(&c.purge, "purge", false, "remove the job, and not only stop it")
	return cmd
}

// Run stops.
func (c *stop) Run(ctx context.Context) error {
	req, err := orders(spec.OpStop, c.targets)
	if err != nil {
		return err
	}
	if c.purge {
		for _, o := range req.Orders {
			target, err := api.ParseTarget(o.Target)
			if err != nil {
				return err
			}
			if target.Process != "" {
				return fmt.Errorf("-purge removes whole jobs, and %s is a part of one: take it out of its file and apply that", o.Target)
			}
			req.Remove = append(req.Remove, target.Job)
		}
		req.Orders = nil
	}
	return c.run(ctx, req)
}
