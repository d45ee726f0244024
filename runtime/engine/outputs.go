package engine

import (
	"io"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/spec"
)

// outputs holds the pipes of all instances open.
type outputs struct {
	watchdog Watchdog
	logger   hclog.Logger

	mu   sync.Mutex // guards held
	held map[spec.InstanceID]io.Closer
}

func newOutputs(watchdog Watchdog, logger hclog.Logger) *outputs {
	return &outputs{watchdog: watchdog, logger: logger, held: map[spec.InstanceID]io.Closer{}}
}

// hold opens an instance's pipes if they are not open. It is tried again at
// every event of the instance, since the pipes are made after the declaration.
func (o *outputs) hold(id spec.InstanceID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.held[id] != nil {
		return
	}
	c, err := o.watchdog.HoldOutput(id)
	if err != nil {
		o.logger.Debug("the output of an instance is not held yet", "instance", id.String(), "error", err)
		return
	}
	o.held[id] = c
}

// drop closes the pipes of an instance that is gone.
func (o *outputs) drop(id spec.InstanceID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.held[id]; c != nil {
		c.Close()
		delete(o.held, id)
	}
}

// close closes all.
func (o *outputs) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, c := range o.held {
		c.Close()
		delete(o.held, id)
	}
}
