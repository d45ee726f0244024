package watchdog

import (
	"time"
)

// halt is how the loop ends.
type halt struct {
	// keep leaves the processes alive, for a successor.
	keep bool
	// agentToo is set once only the agent is left to be stopped.
	agentToo bool
}

// beginHalt ends the loop: with keep at once, leaving all processes alive;
// otherwise by stopping them, the agent last, so that it can tell.
func (s *supervisor) beginHalt(keep bool, now time.Time) {
	if s.halt != nil && s.halt.keep {
		return
	}
	s.halt, s.life.halting = &halt{keep: keep}, true
	if keep {
		return
	}
	// Once all have ended, the agent gives their locks away.
	s.life.leases.fence.file.retire()
	// They are wanted again by whoever comes next: replaced, not removed.
	for _, in := range s.life.sorted() {
		if in.view.ID != AgentID {
			s.pause(in, now)
		}
	}
}

// leaveable refuses to leave the processes alive without a watchdog while one of
// them lives under a lease: nobody would end it with that.
func (s *supervisor) leaveable() error {
	for _, in := range s.life.sorted() {
		if in.proc != nil && in.Lease != "" {
			return refuse("instance %s runs under a lease that nobody would enforce: stop it or move it to another node first", in.view.ID)
		}
	}
	return nil
}

// pause stops an instance in a way that a successor starts it again.
func (s *supervisor) pause(in *instance, now time.Time) {
	if in.Phase.alive() {
		if in.Blame == "" {
			in.Blame = "meshrun is shutting down"
		}
		s.life.step(in, evReplace, now)
	}
}

// halted reports whether the loop is through, and stops the agent once it is
// the only one left.
func (s *supervisor) halted() bool {
	if s.halt == nil {
		return false
	}
	if s.halt.keep {
		return true
	}
	agent := s.life.byID[AgentID]
	left := len(s.life.byProcess) + len(s.life.queue.between)
	if agent != nil && agent.proc != nil && !s.halt.agentToo {
		if left > 1 {
			return false
		}
		s.halt.agentToo = true
		s.pause(agent, time.Now())
		return false
	}
	return left == 0
}
