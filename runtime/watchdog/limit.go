package watchdog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/watchdog/cgroup"
	"github.com/synergymesh/meshrun/spec"
)

// limit makes an instance's limits hold: for its process if it has one, else for
// the one that is about to be forked. Where that cannot be done it runs without
// them, and that is told: of the machine once, of an instance each time.
func (s *supervisor) limit(in *instance) {
	err := s.kern.Limit(in.launch, in.proc, in.marks())
	switch {
	case err == nil:
		if in.launch.Resources != nil {
			s.unlimited = ""
		}
	case errors.Is(err, cgroup.ErrUnavailable):
		s.tellUnlimited(oneLine(err), time.Now())
	default:
		s.tell(in, note{kind: spec.EventUnlimited, severity: spec.Warning,
			message: "runs without some of its limits: " + oneLine(err)})
	}
}

// tellUnlimited tells once that limits are more than this machine lets be set.
func (s *supervisor) tellUnlimited(why string, now time.Time) {
	if s.unlimited == why {
		return
	}
	s.unlimited = why
	message := "processes run without their limits: " + why
	s.log.Warn(message)
	s.journal.append(record{Event: spec.Event{Time: now.UTC(), Type: spec.EventUnlimited, Severity: spec.Warning,
		Who: "watchdog", Message: message}})
}

// unlimitedNow says why limits don't hold, if there is anybody who has some.
func (s *supervisor) unlimitedNow() string {
	for _, in := range s.instances {
		if in.launch.Resources != nil {
			return s.unlimited
		}
	}
	return ""
}

// oneLine tells joined errors in one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// tidy removes the cgroups of what has ended; what is not empty yet has its turn
// when orphans are reaped.
func (s *supervisor) tidy(now time.Time) {
	if !s.kern.Tidy() {
		s.planSweep(now)
	}
}

// reclaim ends what a predecessor left in cgroups that are nobody's: members of
// instances whose main process is gone, wherever they have set themselves free
// to.
func (s *supervisor) reclaim(now time.Time) {
	killed := s.kern.Reclaim()
	names := make([]string, 0, len(killed))
	for name, n := range killed {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		message := fmt.Sprintf("%d processes were left in cgroup %s, whose instance has ended: killed", killed[name], name)
		s.log.Warn(message)
		s.journal.append(record{Event: spec.Event{Time: now.UTC(), Type: spec.EventStray, Severity: spec.Warning,
			Who: "watchdog", Message: message}})
	}
	s.tidy(now)
}
