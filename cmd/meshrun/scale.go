package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// scale changes a process's number of shards.
type scale struct {
	operate
	target string
	count  string
}

func scaleCommand(term *terminal) *cobra.Command {
	c := &scale{operate: operate{term: term, place: place{term: term}}}
	cmd := &cobra.Command{
		Use:   "scale [OPTIONS] JOB/PROCESS N",
		Short: "Set a process's number of shards",
		Long: "scale sets how many instances of a process run, at once. The job's file keeps its own number: the next\n" +
			"apply of it has the last word.",
		Example:           "  meshrun scale shop/web 4",
		Args:              arguments(2, 2, "the process and a number: JOB/PROCESS N"),
		ValidArgsFunction: completeTargets(&c.place, firstWordOnly),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.target, c.count = args[0], args[1]
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	c.waitFlags(cmd)
	neverAsks(cmd)
	return cmd
}

// Run scales.
func (c *scale) Run(ctx context.Context) error {
	target, err := api.ParseTarget(c.target)
	if err != nil {
		return err
	}
	if target.Process == "" || target.Shard >= 0 {
		return fmt.Errorf("%q is not a process: write JOB/PROCESS", c.target)
	}
	n, err := strconv.Atoi(c.count)
	if err != nil || n < 0 || n > spec.MaxShards {
		return fmt.Errorf("%q is not a number of shards: write 0 to %d", c.count, spec.MaxShards)
	}
	return c.run(ctx, api.PlanRequest{Orders: []api.Order{{Op: spec.OpScale, Target: target.String(), Count: n}}})
}
