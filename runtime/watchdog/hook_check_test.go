package watchdog

import (
	"errors"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

func TestHooksThatCannotBeAreRefused(t *testing.T) {
	for words, spoil := range map[string]func(l *spec.Launch){
		"unknown hook":   func(l *spec.Launch) { l.Hooks[0].When = "before_stop" },
		"twice":          func(l *spec.Launch) { l.Hooks[0].When = spec.HookAfterStop },
		"has no command": func(l *spec.Launch) { l.Hooks[1].Argv = nil },
		"greater than 0": func(l *spec.Launch) { l.Hooks[1].Timeout = 0 },
		"NUL byte":       func(l *spec.Launch) { l.Hooks[1].Argv = []string{"a", "secret\x00"} },
		"one line":       func(l *spec.Launch) { l.Expire = &spec.Expire{Why: "a\nb"} },
	} {
		l := hooked("a")
		spoil(&l)
		err := checkBatch([]spec.Launch{l}, nil)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", words, err)
		}
	}
}
