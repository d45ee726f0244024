package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// sendSignal sends a signal to instances.
type sendSignal struct {
	place
	term    *terminal
	signal  string
	targets []string
	json    bool
}

func signalCommand(term *terminal) *cobra.Command {
	c := &sendSignal{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:     "signal [OPTIONS] SIGNAL JOB[/PROCESS[/SHARD]]…",
		Short:   "Send a signal to the processes of a job, a process or one shard",
		Example: "  meshrun signal HUP shop/web",
		Args:    arguments(2, -1, "a signal and who gets it: SIGNAL JOB[/PROCESS[/SHARD]]"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return spec.SignalNames(), cobra.ShellCompDirectiveNoFileComp
			}
			return completeTargets(&c.place, everyWord)(cmd, args, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c.signal, c.targets = args[0], args[1:]
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	cmd.Flags().BoolVar(&c.json, "json", false, "print the number of instances as JSON")
	return cmd
}

// Run sends the signal.
func (c *sendSignal) Run(ctx context.Context) error {
	signal, ok := spec.ParseSignal(c.signal)
	if !ok {
		return fmt.Errorf("%q is not a signal: write a name such as HUP, USR1 or SIGTERM", c.signal)
	}
	for _, t := range c.targets {
		if _, err := api.ParseTarget(t); err != nil {
			return err
		}
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	sent := 0
	for _, t := range c.targets {
		n, err := client.Signal(ctx, t, signal)
		if err != nil {
			return err
		}
		sent += n
	}
	if c.json {
		return c.term.json(api.Signalled{Count: sent})
	}
	return c.term.print(fmt.Sprintf("%s sent to %s.\n", signal, count(sent, "instance")))
}
