package agent

import (
	"context"
	"fmt"
	"io"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/watchdog"
)

// WatchdogConfig is what `meshrun watchdog` is told by its command line.
type WatchdogConfig struct {
	// DataDir is an absolute path; it is made if it is missing.
	DataDir string
	// Agent is the command line of the agent to keep alive.
	Agent   []string
	Version string
	Logger  hclog.Logger
	// AgentOutput also gets what the agent writes; nil for nobody.
	AgentOutput io.Writer
}

// RunWatchdog is the parent of everything that meshrun runs on a node. It
// returns when it was told to end and all that it ran has ended.
func RunWatchdog(ctx context.Context, cfg WatchdogConfig) error {
	if err := watchdog.CloseInherited(); err != nil {
		cfg.Logger.Warn("a descriptor of the program that started this one stays open", "error", err)
	}
	if err := watchdog.PrepareDataDir(cfg.DataDir); err != nil {
		return err
	}
	restBetweenBursts()
	err := watchdog.Run(ctx, watchdog.Config{
		DataDir: cfg.DataDir, Agent: cfg.Agent, Version: cfg.Version,
		Logger: cfg.Logger, AgentOutput: cfg.AgentOutput,
	})
	if err != nil {
		return fmt.Errorf("run watchdog: %w", err)
	}
	return nil
}
