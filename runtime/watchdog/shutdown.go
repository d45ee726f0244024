package watchdog

import (
	"time"
)

// shutdown is how the loop ends.
type shutdown struct {
	// keep leaves the processes alive, for a successor.
	keep bool
	// agentToo is set once only the agent is left to be stopped.
	agentToo bool
}

// beginShutdown ends the loop: with keep at once, leaving all processes
// running; otherwise by stopping them, the agent last, so that it can report
// the others' end.
func (s *supervisor) beginShutdown(keep bool, now time.Time) {
	if s.shutdown != nil && s.shutdown.keep {
		return
	}
	s.shutdown, s.life.shuttingDown = &shutdown{keep: keep}, true
	if keep {
		return
	}
	// Once all have ended, the agent releases their locks.
	s.life.leases.fence.file.retire()
	// A successor starts them again: they are replaced, not removed.
	for _, in := range s.life.sorted() {
		if in.view.ID != AgentID {
			s.pause(in, now)
		}
	}
}

// leaveable refuses to leave processes running without a watchdog while one of
// them runs under a lease, which nobody would enforce.
func (s *supervisor) leaveable() error {
	for _, in := range s.life.sorted() {
		if in.proc != nil && in.Lease != "" {
			return refuse("instance %s runs under a lease that nobody would enforce: stop it or move it to another node first", in.view.ID)
		}
	}
	return nil
}

// pause stops an instance in such a way that a successor starts it again.
func (s *supervisor) pause(in *instance, now time.Time) {
	if in.Phase.alive() {
		if in.Blame == "" {
			in.Blame = "meshrun is shutting down"
		}
		s.life.step(in, evReplace, now)
	}
}

// finished reports whether the shutdown is complete. It stops the agent once
// that is the only process left.
func (s *supervisor) finished() bool {
	if s.shutdown == nil {
		return false
	}
	if s.shutdown.keep {
		return true
	}
	agent := s.life.byID[AgentID]
	left := len(s.life.byProcess) + len(s.life.queue.between)
	if agent != nil && agent.proc != nil && !s.shutdown.agentToo {
		if left > 1 {
			return false
		}
		s.shutdown.agentToo = true
		s.pause(agent, time.Now())
		return false
	}
	return left == 0
}
