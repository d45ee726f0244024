package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// drain makes a node give its shards away.
type drain struct {
	place
	term            *terminal
	node            string
	off, wait, json bool
	timeout         time.Duration
}

func drainCommand(term *terminal) *cobra.Command {
	c := &drain{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:   "drain [OPTIONS] NODE",
		Short: "Move all shards off a node, or let it take some again",
		Long: "drain makes a node give its shards to other nodes and take no new ones, until `meshrun drain -off NODE`. The\n" +
			"node remembers it when it is restarted. Shards that no other node can take are named: they end, and start again\n" +
			"once a node can take them.",
		Example:           "  meshrun drain -wait node-b     # then it can be rebooted\n  meshrun drain -off node-b",
		Args:              arguments(1, 1, "the name of a node"),
		ValidArgsFunction: completeNodes(&c.place),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.node = args[0]
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	cmd.Flags().BoolVar(&c.off, "off", false, "end the draining")
	cmd.Flags().BoolVar(&c.wait, "wait", false, "wait until no shard is left, and show them leave")
	cmd.Flags().DurationVar(&c.timeout, "timeout", 10*time.Minute, "how long to wait")
	cmd.Flags().BoolVar(&c.json, "json", false, "print what was ordered as JSON")
	return cmd
}

// Run orders the drain, and follows it if that was asked for.
func (c *drain) Run(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	out, err := client.Drain(ctx, api.Drain{Node: c.node, Off: c.off})
	if err != nil {
		return err
	}
	if c.json {
		err = c.term.json(out)
	} else {
		c.tell(out)
	}
	if err != nil || !c.wait || c.off {
		return err
	}
	return c.follow(ctx, client)
}

func (c *drain) tell(out api.Drained) {
	switch {
	case c.off && out.Changed:
		c.term.say("Node %s takes shards again.", c.node)
	case c.off:
		c.term.say("Node %s was not draining.", c.node)
	case out.Changed:
		c.term.say("Node %s is draining: its shards move to other nodes.", c.node)
	default:
		c.term.say("Node %s is draining already.", c.node)
	}
	for _, w := range out.Warnings {
		c.term.say("%s %s", c.term.errStyle.yellow("Warning:"), w)
	}
}

// follow shows the shards leave until none is left.
func (c *drain) follow(ctx context.Context, client *api.Client) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	there := map[spec.InstanceID]bool{}
	var left []spec.Instance
	holds := &holdups{term: c.term, client: client}
	defer holds.watch(ctx)()
	err := watchInstances(ctx, client, &absence{}, func(all []spec.Instance) bool {
		var still []spec.Instance
		now := map[spec.InstanceID]bool{}
		for _, i := range all {
			if i.Node == c.node && !isOver(i.Phase) {
				still = append(still, i)
				now[i.ID] = true
			}
		}
		for _, i := range left {
			if !now[i.ID] && there[i.ID] {
				c.term.say("  %s  %s", i.ID, c.term.errStyle.dim(fmt.Sprintf("has left, %s to go", count(len(still), "shard"))))
			}
		}
		left, there = still, now
		holds.waitFor(still)
		return len(left) > 0
	})
	if errors.Is(err, context.DeadlineExceeded) && len(left) > 0 {
		return fmt.Errorf("after %s, %s still on node %s: %s%s: see `meshrun status`, or wait longer with -timeout",
			ago(c.timeout), count(len(left), "shard"), c.node, summary(left, c.term.now()), holds.note())
	}
	if err != nil {
		return err
	}
	c.term.say("No shard is left on node %s.", c.node)
	return nil
}

// isOver reports whether an instance has ended for good: it needs no other node.
func isOver(p spec.Phase) bool { return p == spec.PhaseCompleted || p == spec.PhaseFailed }

// completeNodes completes the names of nodes.
func completeNodes(p *place) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, client, end := p.askForCompletion(cmd)
		defer end()
		if client == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		cluster, err := client.Cluster(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, n := range cluster.Nodes {
			if n.State != api.NodeGone {
				names = append(names, n.Name)
			}
		}
		names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, word) })
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
