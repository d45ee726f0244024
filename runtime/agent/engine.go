package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"syscall"
	"time"

	"github.com/synergymesh/meshrun/runtime/watchdog"
	"github.com/synergymesh/meshrun/runtime/watchdog/output"
	"github.com/synergymesh/meshrun/spec"
)

// engineAgent is the agent as its engine sees it: see engine.Agent.
type engineAgent struct{ *agent }

func (a engineAgent) Session() string { return a.sessionNow() }

func (a engineAgent) Emit(ev spec.Event) { a.emit(ev) }

func (a engineAgent) Problem(text string) { a.backend.Problem("report", text) }

// engineWatchdog is the watchdog, and the files that it leaves in the data
// directory, as the engine sees them: see engine.Watchdog.
type engineWatchdog struct {
	*watchdog.Client
	dataDir string
}

func (engineWatchdog) Refused(err error) bool { return errors.Is(err, watchdog.ErrRefused) }

func (w engineWatchdog) HoldOutput(id spec.InstanceID) (io.Closer, error) {
	return watchdog.HoldOutput(w.dataDir, id)
}

func (engineWatchdog) Prepare(l *spec.Launch) (path, dir string, as *syscall.Credential, err error) {
	return watchdog.Prepare(l)
}

// errFound ends a search.
var errFound = errors.New("found")

func (w engineWatchdog) FindOutput(ctx context.Context, id spec.InstanceID, since time.Time, pattern string) (text string, found bool, err error) {
	q := spec.LogQuery{Job: id.Job, Process: id.Process, Shard: id.Shard, Since: since, Grep: pattern}
	err = output.Stream(ctx, filepath.Join(w.dataDir, "logs"), q, func(line spec.LogLine) error {
		text = line.Text
		return errFound
	})
	if errors.Is(err, errFound) {
		return text, true, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("search output of %s: %w", id, err)
	}
	return "", false, nil
}
