package follow_test

import (
	"testing"
	"testing/synctest"

	"github.com/synergymesh/meshrun/runtime/state/local"
)

func TestARoleTellsOthersWhatItsNodeHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := local.OpenMemory(local.Options{})
		defer store.Close()
		a, b := join(t, store, "a", anyOne), join(t, store, "b", anyOne)
		const lock = locksDir + "one"
		turned := func(m *member) bool {
			select {
			case <-m.role.Turned():
				return true
			default:
				return false
			}
		}
		if !a.role.Holds(lock) || b.role.Holds(lock) || !turned(a) || turned(b) || turned(a) {
			t.Fatalf("a has come first; a holds %v, b holds %v", a.role.Holds(lock), b.role.Holds(lock))
		}
		a.setSession("")
		if a.role.Holds(lock) {
			t.Error("it holds a lock without a session")
		}
		synctest.Wait()
		if !turned(a) {
			t.Error("nobody is told that it has lost the lock")
		}
		for _, m := range []*member{a, b} {
			m.leave()
			<-m.done
		}
	})
}
