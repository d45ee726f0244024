package engine

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
)

// loudEvery is how many failures in a row make one warning.
const loudEvery = 10

// backoff is a wait that doubles with every failure, and tells about some.
type backoff struct {
	logger hclog.Logger
	wait   time.Duration
	failed int // in a row
}

func newBackoff(logger hclog.Logger) *backoff {
	return &backoff{logger: logger, wait: firstRetry}
}

// next notes a failure and returns how long to wait now.
func (b *backoff) next(problem string, err error) time.Duration {
	wait := b.wait
	b.wait = min(2*wait, lastRetry)
	level := hclog.Debug
	if b.failed%loudEvery == 0 {
		level = hclog.Warn
	}
	b.failed++
	b.logger.Log(level, problem, "failures", b.failed, "retry_in", wait, "error", err)
	return wait
}

// reset notes a success.
func (b *backoff) reset(recovery string) {
	if b.failed > 0 {
		b.logger.Info(recovery, "failures", b.failed)
	}
	b.wait, b.failed = firstRetry, 0
}

// sleep waits, unless ctx is done first.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
