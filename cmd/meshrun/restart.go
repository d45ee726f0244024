package main

import (
	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

func restartCommand(term *terminal) *cobra.Command {
	c := &operate{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:   "restart [OPTIONS] JOB[/PROCESS[/SHARD]]…",
		Short: "Restart a job, a process or one shard",
		Long: "restart restarts what runs, and starts what was stopped, has failed or waits for its next try. It is\n" +
			"done at once, and survives a crash of meshrun: what was asked for is restarted exactly once.",
		Example:           "  meshrun restart shop/web/2",
		Args:              arguments(1, -1, "what to restart: JOB, JOB/PROCESS or JOB/PROCESS/SHARD"),
		ValidArgsFunction: completeTargets(&c.place, everyWord),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := orders(spec.OpRestart, args)
			if err != nil {
				return err
			}
			return c.run(cmd.Context(), req)
		},
	}
	c.place.remote(cmd)
	c.waitFlags(cmd)
	neverAsks(cmd)
	return cmd
}

// orders makes a request of one operation on several targets.
func orders(op spec.Op, targets []string) (api.PlanRequest, error) {
	var req api.PlanRequest
	for _, text := range targets {
		target, err := api.ParseTarget(text)
		if err != nil {
			return req, err
		}
		req.Orders = append(req.Orders, api.Order{Op: op, Target: target.String()})
	}
	return req, nil
}
