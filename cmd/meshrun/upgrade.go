package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
)

// upgradeTimeout bounds how long the new agent may take.
const upgradeTimeout = time.Minute

// upgrade lets the running watchdog and agent take over a new binary.
type upgrade struct {
	place
	term *terminal
}

func upgradeCommand(term *terminal) *cobra.Command {
	c := &upgrade{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:   "upgrade [OPTIONS]",
		Short: "Let the running node take over the binary that is installed now",
		Long: "upgrade replaces the running watchdog and agent by the program that is installed in their place now.\n" +
			"No instance is touched.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.Run(cmd.Context()) },
	}
	c.place.remote(cmd)
	return cmd
}

// Run upgrades, and waits until a new agent answers.
func (c *upgrade) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	before, err := client.Info(ctx)
	if err != nil {
		return err
	}
	if err := client.Upgrade(ctx); err != nil {
		return err
	}
	after, err := waitForOther(ctx, client, before.PID)
	if err != nil {
		return fmt.Errorf("wait for the new agent: %w: see `meshrun status`", err)
	}
	c.term.say("Upgraded: version %s → %s, agent pid %d → %d. No instance was touched.", before.Version, after.Version, before.PID, after.PID)
	return nil
}

// waitForOther waits until an agent with another pid is ready.
func waitForOther(ctx context.Context, client *api.Client, pid int) (api.Info, error) {
	pause := 20 * time.Millisecond
	for {
		info, err := client.Ready(ctx)
		if err == nil && info.PID != pid {
			return info, nil
		}
		if err != nil && !passing(err) {
			return info, err
		}
		pause = min(2*pause, time.Second)
		select {
		case <-ctx.Done():
			return info, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}
