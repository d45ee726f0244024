package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

const (
	declareTimeout = 15 * time.Second
	// declareBytes is about how much one declaration holds, so that a busy machine
	// is done with it in time, and launchBytes what a launch takes beside its texts.
	declareBytes = 8 << 20
	launchBytes  = 1 << 10
)

// declare tells the watchdog, in batches that it can take in time.
func (e *Engine) declare(ctx context.Context, set []Wanted, remove []spec.InstanceID) error {
	for {
		n := batch(set)
		if err := e.declareBatch(ctx, set[:n], remove); err != nil {
			return err
		}
		if set, remove = set[n:], nil; len(set) == 0 {
			return nil
		}
	}
}

// batch returns how many of the first are declared together: at least one.
func batch(set []Wanted) int {
	size := 0
	for i, w := range set {
		size += launchBytes
		for _, texts := range [][]string{w.Launch.Argv, w.Launch.Env} {
			for _, text := range texts {
				size += len(text)
			}
		}
		if i > 0 && size > declareBytes {
			return i
		}
	}
	return len(set)
}

// declareBatch tells the watchdog and remembers what was told. Of a batch that is
// refused it finds what is guilty, so that one bad launch holds up no other.
func (e *Engine) declareBatch(ctx context.Context, set []Wanted, remove []spec.InstanceID) error {
	err := e.tell(ctx, set, remove)
	switch {
	case err == nil || !e.cfg.Watchdog.Refused(err):
		return err
	case len(remove) > 0 && len(set) > 0:
		if err := e.declareBatch(ctx, nil, remove); err != nil {
			return err
		}
		return e.declareBatch(ctx, set, nil)
	case len(set) > 1:
		half := len(set) / 2
		if err := e.declareBatch(ctx, set[:half], nil); err != nil {
			return err
		}
		return e.declareBatch(ctx, set[half:], nil)
	case len(set) == 1:
		e.build.refuse(set[0].ID, fmt.Errorf("the watchdog refused it: %w", errors.Unwrap(err)))
		e.kick.Set()
		return nil
	}
	return err
}

// tell is one call of the watchdog.
func (e *Engine) tell(ctx context.Context, set []Wanted, remove []spec.InstanceID) error {
	if len(set)+len(remove) == 0 {
		return nil
	}
	launches := make([]spec.Launch, len(set))
	told := make(map[spec.InstanceID]Declared, len(set)+len(remove))
	for i, w := range set {
		launches[i] = *w.Launch
		told[w.ID] = Declared{Digest: w.Digest}
	}
	for _, id := range remove {
		told[id] = Declared{Removed: true}
	}
	ctx, cancel := context.WithTimeout(ctx, declareTimeout)
	defer cancel()
	if err := e.take(ctx); err != nil {
		return fmt.Errorf("declare %d instances and remove %d: %w", len(set), len(remove), err)
	}
	defer e.leave()
	// Remembered before, so that an event that comes meanwhile can overrule it.
	before := e.remember(told)
	if err := e.cfg.Watchdog.Declare(ctx, launches, remove); err != nil {
		e.unsay(told, before)
		if !e.cfg.Watchdog.Refused(err) {
			// Nobody knows what arrived, and so which locks may be given up: the
			// table tells.
			e.doubtful = true
			e.view.unsync()
		}
		return fmt.Errorf("declare %d instances and remove %d: %w", len(set), len(remove), err)
	}
	return nil
}

// take takes talk, leave gives it back.
func (e *Engine) take(ctx context.Context) error {
	select {
	case e.talk <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *Engine) leave() { <-e.talk }

// remember notes what is told and returns what was told before.
func (e *Engine) remember(told map[spec.InstanceID]Declared) map[spec.InstanceID]Declared {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := make(map[spec.InstanceID]Declared, len(told))
	for id, d := range told {
		if old, ok := e.declared[id]; ok {
			before[id] = old
		}
		e.declared[id] = d
	}
	return before
}

// unsay takes back what was told in vain. It may have arrived or not: what is
// unknown is told again, but a removal stays known as one.
func (e *Engine) unsay(told, before map[spec.InstanceID]Declared) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range told {
		delete(e.declared, id)
		if old, ok := before[id]; ok && old.Removed && !told[id].Removed {
			e.declared[id] = old
		}
	}
}

// knows reports whether the watchdog has, or may have, an instance.
func (e *Engine) knows(id spec.InstanceID) bool {
	e.mu.Lock()
	_, declared := e.declared[id]
	e.mu.Unlock()
	return declared || e.view.has(id)
}
