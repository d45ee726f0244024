package main

import (
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// againAfter is how long what is followed is left alone after it broke off.
const againAfter = time.Second

// watchRollouts begins to tell what becomes of the rollouts of this session's
// jobs: in steps, a save may well be done with only after minutes.
func (s *upSession) watchRollouts() {
	query := api.EventQuery{Types: []spec.EventType{"rollout."}, Since: s.since, Follow: true}
	s.wg.Go(func() {
		for s.ctx.Err() == nil {
			err := s.client.Events(s.ctx, query, func(ev spec.Event) error {
				query.After = ev.ID
				s.mu.Lock()
				_, mine := s.jobs[ev.Job]
				s.mu.Unlock()
				if mine {
					s.up.term.say("%s", rolloutLine(&ev, s.up.term.errStyle))
				}
				return nil
			})
			if s.ctx.Err() != nil || (err != nil && !passing(err)) {
				return // the instances tell the most of it anyway
			}
			if pause(s.ctx, againAfter) != nil {
				return
			}
		}
	})
}

// rolloutLine tells an event of a rollout in the words of up.
func rolloutLine(ev *spec.Event, s style) string {
	text := ev.Job + ": " + oneLine(ev.Message)
	switch ev.Type {
	case spec.EventRolloutDone:
		return s.green("✔ " + text)
	case spec.EventRolloutFailed, spec.EventRolloutReverted:
		return s.red("✖ " + text)
	default:
		return s.yellow("○ " + text)
	}
}
