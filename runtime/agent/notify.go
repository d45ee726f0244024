package agent

import (
	"context"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/watchdog"
)

// supervisor is who keeps the agent alive: the watchdog.
func supervisor() watchdog.Notifier { return watchdog.NewNotifier(os.Getenv) }

// keepAlive tells the supervisor at a third of its timeout that the agent
// works, as long as healthy says so.
func keepAlive(ctx context.Context, logger hclog.Logger, healthy func(context.Context) error) error {
	above := supervisor()
	if above.Timeout == 0 {
		<-ctx.Done()
		return nil
	}
	period := above.Timeout / 3
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		check, cancel := context.WithTimeout(ctx, period)
		err := healthy(check)
		cancel()
		if err == nil {
			// A watchdog that is just being replaced misses a beat; that is fine.
			_ = above.Send("WATCHDOG=1")
		} else if ctx.Err() == nil {
			logger.Warn("not healthy: keeping the keep-alive back", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
