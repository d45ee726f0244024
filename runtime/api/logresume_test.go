package api_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// Whatever an output is and wherever it breaks off, each line is seen once.
func TestOutputThatBreaksOffGoesOnWithoutGapOrDouble(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Unix(1700000000, 0)
		var all []spec.LogLine
		for n := range rapid.IntRange(0, 40).Draw(t, "lines") {
			all = append(all, spec.LogLine{
				ID:   spec.InstanceID{Job: "web", Process: "app", Shard: rapid.IntRange(0, 2).Draw(t, "shard")},
				Node: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "node"),
				// Many lines have the same time.
				Time: start.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "time")) * time.Second),
				Text: string(rune('A' + n)),
			})
		}
		slices.SortStableFunc(all, func(a, b spec.LogLine) int { return a.Time.Compare(b.Time) })
		var resume api.LogResume
		var got []string
		written := 0 // what the instances have printed so far
		for round := range 5 {
			if written = rapid.IntRange(written, len(all)).Draw(t, "written"); round == 4 {
				written = len(all)
			}
			q := resume.Query(spec.LogQuery{Job: "web", Shard: -1})
			breaks := rapid.IntRange(0, len(all)).Draw(t, "breaks after")
			for _, line := range all[:written] {
				if line.Time.Before(q.Since) {
					continue
				}
				if breaks == 0 && round < 4 {
					break
				}
				breaks--
				if resume.Fresh(&line) {
					got = append(got, line.Text)
				}
			}
		}
		var want []string
		for _, line := range all {
			want = append(want, line.Text)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("seen %q, printed %q", got, want)
		}
	})
}
