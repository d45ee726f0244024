package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/agent"
)

// runWatchdog is `meshrun watchdog`, which `meshrun agent` becomes.
type runWatchdog struct {
	place
	term  *terminal
	agent []string
	// run is agent.RunWatchdog; tests replace it.
	run func(context.Context, agent.WatchdogConfig) error
}

func watchdogCommand(term *terminal) *cobra.Command {
	c := &runWatchdog{term: term, place: place{term: term}, run: agent.RunWatchdog}
	cmd := &cobra.Command{
		Use:           "watchdog [OPTIONS] -- COMMAND…",
		Short:         "Keep an agent and its processes alive; `meshrun agent` starts it",
		Hidden:        true,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          arguments(1, -1, "the agent's command line after \"--\""),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.agent = args
			return c.Run(cmd.Context())
		},
	}
	c.place.flags(cmd)
	return cmd
}

// Run keeps the agent and its instances alive until it is told to end.
func (c *runWatchdog) Run(ctx context.Context) error {
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	// It is as talkative as its agent.
	level := "info"
	if i := slices.Index(c.agent, "-log-level"); i >= 0 && i+1 < len(c.agent) {
		level = c.agent[i+1]
	}
	logger, err := newLogger(c.term, level)
	if err != nil {
		return err
	}
	return c.run(ctx, agent.WatchdogConfig{
		DataDir: dir, Agent: c.agent, Version: thisBuild().Version, Logger: logger, AgentOutput: c.term.err,
	})
}
