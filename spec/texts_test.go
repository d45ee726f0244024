package spec

import (
	"reflect"
	"strings"
	"testing"
	"unsafe"
)

func TestEqualTextsOfLaunchesAreOneInMemory(t *testing.T) {
	fresh := func() []Launch {
		text := func(s string) string { return strings.Clone(s) }
		return []Launch{
			{Argv: []string{text("run"), text("1")}, Env: []string{text("HOME=/root"), text("N=1")}},
			{Argv: []string{text("run"), text("2")}, Env: []string{text("HOME=/root"), text("N=2")}},
		}
	}
	launches := fresh()
	texts := Texts{}
	for i := range launches {
		texts.Share(&launches[i])
	}
	if !reflect.DeepEqual(launches, fresh()) {
		t.Errorf("they have changed: %v", launches)
	}
	same := func(a, b string) bool { return unsafe.StringData(a) == unsafe.StringData(b) }
	if a, b := launches[0], launches[1]; !same(a.Argv[0], b.Argv[0]) || !same(a.Env[0], b.Env[0]) {
		t.Error("equal texts are there twice")
	}
}
