package agent

import (
	"context"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
)

// notify sends a message to the supervisor, as sd_notify(3) describes it: the
// agent's is the watchdog. Without a supervisor it does nothing.
func notify(message string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialTimeout("unixgram", path, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(message))
	return err
}

// keepAlive tells the watchdog at a third of its timeout that the agent
// works, as long as healthy says so.
func keepAlive(ctx context.Context, logger hclog.Logger, healthy func(context.Context) error) error {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		<-ctx.Done()
		return nil
	}
	period := time.Duration(usec) * time.Microsecond / 3
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		check, cancel := context.WithTimeout(ctx, period)
		err := healthy(check)
		cancel()
		if err == nil {
			// A watchdog that is just being replaced misses a beat; that is fine.
			_ = notify("WATCHDOG=1")
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
