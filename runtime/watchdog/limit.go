package watchdog

import (
	"errors"
	"strings"

	"github.com/synergymesh/meshrun/runtime/watchdog/cgroup"
	"github.com/synergymesh/meshrun/spec"
)

// limits sets the limits of instances. Where that cannot be done they run
// without, and that is reported: of the machine once, of an instance each time.
type limits struct {
	kern    kernel
	journal *journal
	missing string // why limits cannot be set on this machine, once that was reported
}

// apply makes an instance's limits hold: for its process if it has one, else for
// the one that is about to be forked.
func (l *limits) apply(in *instance) {
	err := l.kern.Limit(in.launch, in.proc, in.marks())
	if err == nil {
		if in.launch.Resources != nil {
			l.missing = ""
		}
		return
	}
	why := strings.ReplaceAll(err.Error(), "\n", "; ")
	if !errors.Is(err, cgroup.ErrUnavailable) {
		l.journal.record(in, note{kind: spec.EventUnlimited, severity: spec.Warning, message: "runs without some of its limits: " + why})
	} else if l.missing != why {
		l.missing = why
		l.journal.recordOwn(spec.EventUnlimited, spec.Warning, "", "processes run without their limits: "+why)
	}
}

// problem says why limits do not hold, if any of the instances has some.
func (l *limits) problem(instances map[spec.InstanceID]*instance) string {
	for _, in := range instances {
		if in.launch.Resources != nil {
			return l.missing
		}
	}
	return ""
}
