package follow_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
)

func TestAnAnswerThatCannotFollowTheLastOneTellsThatTheStoreWasPutBack(t *testing.T) {
	entry := func(name string, at uint64) state.Entry { return state.Entry{Key: prefix + name, ModifyIndex: at} }
	a, b := entry("a", 40), entry("b", 50)
	first := answer{entries: []state.Entry{a, b}, index: 60} // the last change was a deletion
	for name, c := range map[string]struct {
		next  answer
		after uint64
		pause time.Duration
		want  bool
	}{
		"a change":                               {next: answer{entries: []state.Entry{a, entry("b", 70)}, index: 70}, after: 60},
		"a deletion":                             {next: answer{entries: []state.Entry{a}, index: 70}, after: 60},
		"something new":                          {next: answer{entries: []state.Entry{a, b, entry("c", 70)}, index: 70}, after: 60},
		"an older value":                         {next: answer{entries: []state.Entry{a, entry("b", 45)}, index: 45}, after: 60, want: true},
		"what had been deleted":                  {next: answer{entries: []state.Entry{a, b, entry("c", 55)}, index: 55}, after: 60, want: true},
		"an older value, and a write after that": {next: answer{entries: []state.Entry{entry("a", 80), entry("b", 45)}, index: 80}, after: 60, want: true},
		"the newest is not there yet":            {next: answer{entries: []state.Entry{a}, index: 40}, after: 60, want: true},
		"the same, asked afresh":                 {next: answer{entries: []state.Entry{a, b}, index: 60}},
		"an older value, asked afresh":           {next: answer{entries: []state.Entry{a, entry("b", 45)}, index: 45}, want: true},
		"less, asked afresh":                     {next: answer{entries: []state.Entry{a}, index: 40}, want: true},
		"a deletion that is forgotten":           {next: answer{entries: []state.Entry{a, b}, index: 50}},
		"two deletions that are forgotten":       {next: answer{entries: []state.Entry{a}, index: 40}, pause: time.Hour},
		"an index from elsewhere":                {next: answer{entries: []state.Entry{a, b}, index: 60}, after: 90},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := false
				s := follow.Share(&scripted{answers: []answer{first, c.next}}, func() { told = true })
				if _, _, err := s.Watch(t.Context(), prefix, 0); err != nil || told {
					t.Fatalf("told %v, %v", told, err)
				}
				time.Sleep(c.pause)
				if _, _, err := s.Watch(t.Context(), prefix, c.after); err != nil && !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				if told != c.want {
					t.Errorf("told that the store was put back: %v", told)
				}
			})
		})
	}
}

// A read that was under way when something changed may be answered late.
func TestAnAnswerThatWasOvertakenIsNoSignOfARestoredBackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &overtaken{held: make(chan struct{})}
		s := follow.Share(slow, func() { t.Error("told that the store was put back") })
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _, _ = s.Watch(t.Context(), prefix, 0)
		}()
		synctest.Wait()
		for range 2 {
			if _, _, err := s.Watch(t.Context(), prefix, 0); err != nil {
				t.Error(err)
			}
		}
		close(slow.held)
		<-done
	})
}

// overtaken answers its first read last.
type overtaken struct {
	state.Store
	held chan struct{}
	n    uint64
}

func (o *overtaken) Watch(context.Context, string, uint64) ([]state.Entry, uint64, error) {
	o.n++
	n := o.n
	if n == 1 {
		<-o.held
	}
	return []state.Entry{{Key: prefix + "a", ModifyIndex: n}}, n, nil
}
