package follow

import (
	"strings"
	"time"
)

// keepsDeletions is for how long a store surely knows what was deleted; see
// state.Store.
const keepsDeletions = 10 * time.Minute

// past is what a store was last seen to hold, by prefix: enough to notice that
// it was put back to an earlier state, as from a backup.
type past map[string]seen

// seen is an answer and when it came.
type seen struct {
	answer
	at time.Time
}

// before returns what was last seen under a prefix.
func (s *shared) before(prefix string) seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.past[prefix]
}

// judge compares an answer with what had been seen before it was asked for,
// and tells if the store was put back in between. What was seen meanwhile says
// nothing: it may be from before or from after.
func (s *shared) judge(prefix string, before seen, a answer) {
	now := seen{answer: a, at: time.Now()}
	back := isPutBack(before, now)
	s.mu.Lock()
	if last, ok := s.past[prefix]; back || !ok || last.index <= now.index {
		for other := range s.past {
			if len(s.past) < maxAnswers {
				break
			}
			delete(s.past, other)
		}
		s.past[prefix] = now
	}
	s.mu.Unlock()
	if back {
		s.putBack()
	}
}

// isPutBack reports whether what is there now can't have come of what was there
// before: an entry that was not there has an index from before, or the store
// counts back and something is gone. A store that has forgotten a deletion counts
// back too, to its last other change; who waited from that index, or asked again
// before it could be forgotten, has seen the deletion itself.
func isPutBack(before, now seen) bool {
	kept := 0
	old := before.entries
	for _, e := range now.entries {
		for len(old) > 0 && strings.Compare(old[0].Key, e.Key) < 0 {
			old = old[1:]
		}
		switch {
		case len(old) > 0 && old[0].Key == e.Key && old[0].ModifyIndex == e.ModifyIndex:
			kept++
		case e.ModifyIndex <= before.index:
			return true
		}
	}
	followed := now.after == before.index || now.at.Sub(before.at) < keepsDeletions
	return now.index < before.index && kept < len(before.entries) && followed
}
