package plan

import (
	"fmt"
	"maps"
	"slices"

	"github.com/synergymesh/meshrun/spec"
)

// reportable refuses a job of which a node would get more instances than it can
// report: nobody else would learn what became of them. What there is already may
// be changed, and made less.
func (j *part) reportable(s *Snapshot) error {
	if j.next == nil || j.next == j.current || j.placement == nil {
		return nil
	}
	before := func(string) int { return 0 }
	if was, stored := s.Placements[j.wanted.Job]; stored && j.current != nil {
		there := loads(&j.current.Job, &was.Value)
		before = func(node string) int { return there[node].instances }
	} else if j.current != nil { // not placed yet: any node may have had all
		all := 0
		for i := range j.current.Job.Processes {
			all += j.current.Job.Processes[i].Instances()
		}
		before = func(string) int { return all }
	}
	after := loads(&j.next.Job, j.placement)
	for _, node := range slices.Sorted(maps.Keys(after)) {
		if l := after[node]; l.bytes > spec.MaxReportBytes && l.instances > before(node) {
			return fmt.Errorf("job %q cannot work: node %s would have %d instances of it, and can report about %d of one job: split it into several jobs, or let more nodes share it: %w",
				j.wanted.Job, node, l.instances, l.instances*spec.MaxReportBytes/l.bytes, ErrInvalid)
		}
	}
	return nil
}

// load is what a node has of a job, and what it takes to report that.
type load struct{ instances, bytes int }

// loads returns what each node has of a job.
func loads(job *spec.Job, placement *spec.Placement) map[string]load {
	out := map[string]load{}
	for i := range job.Processes {
		p := &job.Processes[i]
		for node, shards := range placement.Processes[p.Name] {
			l := out[node]
			l.instances += len(shards)
			l.bytes += len(shards) * p.ReportBytes(job.Name)
			out[node] = l
		}
	}
	return out
}
