package main

import (
	"context"
	"slices"
	"sync"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// maxHoldups is of how many jobs it is told at a time what holds their shards up.
const maxHoldups = 5

// holdups tells of shards that are waited for what holds them up, once each.
type holdups struct {
	term   *terminal
	client *api.Client

	mu   sync.Mutex // guards what is below
	left []spec.Instance
	last string
	told map[string]bool
}

// waitFor says which shards are waited for now.
func (h *holdups) waitFor(left []spec.Instance) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left = slices.Clone(left)
}

// note is what was told last, to stand behind a list of shards; "" if nothing was.
func (h *holdups) note() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last == "" {
		return ""
	}
	return "; " + h.last
}

// watch looks every quietFor what the shards wait for, until it is told to stop.
// That is done by orchestrators, and comes with no change of an instance.
func (h *holdups) watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		for pause(ctx, quietFor) == nil {
			h.look(ctx)
		}
	})
	return func() { cancel(); work.Wait() }
}

// look asks why the shards wait, and tells what has not been told yet. Who does
// not answer is asked again the next time.
func (h *holdups) look(ctx context.Context) {
	h.mu.Lock()
	left := h.left
	h.mu.Unlock()
	byJob := map[string][]spec.InstanceID{}
	for i := range left {
		byJob[left[i].ID.Job] = append(byJob[left[i].ID.Job], left[i].ID)
	}
	for _, job := range names(byJob)[:min(len(byJob), maxHoldups)] {
		ask, cancel := context.WithTimeout(ctx, quietFor)
		s, err := h.client.Rollout(ask, job, "")
		cancel()
		if err != nil {
			continue
		}
		for _, id := range byJob[job] {
			if why := oneLine(s.Waiting[id]); why != "" {
				h.tell(id, why)
				break // the others wait for the same, or for it
			}
		}
	}
}

func (h *holdups) tell(id spec.InstanceID, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = id.String() + ": " + why
	if h.told[h.last] {
		return
	}
	if h.told == nil {
		h.told = map[string]bool{}
	}
	h.told[h.last] = true
	h.term.say("  %s  %s", id, h.term.errStyle.dim(why))
}
