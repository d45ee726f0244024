package api

import (
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestOnlyTheOwnerAndRootGetIn(t *testing.T) {
	for _, c := range []struct {
		peer    peer
		own     uint32
		allowed bool
	}{
		{peer{uid: 1000}, 1000, true},
		{peer{uid: 0}, 1000, true},
		{peer{uid: 1001}, 1000, false},
		{peer{uid: 1000}, 0, false},
		{peer{uid: 0, err: errors.New("no word")}, 0, false},
	} {
		if err := c.peer.check(c.own); (err == nil) != c.allowed || (err != nil && !errors.Is(err, ErrForbidden)) {
			t.Errorf("%+v at an agent of uid %d: %v", c.peer, c.own, err)
		}
	}
}

func TestAConnectionThatIsNoUnixSocketIsRefused(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	s := NewServer(Config{Logger: hclog.NewNullLogger()})
	r := httptest.NewRequest("GET", "/healthz", nil)
	for name, ctx := range map[string]context.Context{"a pipe": withPeer(t.Context(), a), "nothing known": t.Context()} {
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, r.WithContext(ctx))
		if w.Code != 403 || !strings.Contains(w.Body.String(), `"code":"forbidden"`) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

func TestANameFromOutsideIsMadeSafe(t *testing.T) {
	for in, want := range map[string]string{
		"alice": "alice", "Jürgen ": "Jürgen", "al\x1b[2Jice\n": "al[2Jice", "": "",
		strings.Repeat("ü", 100): strings.Repeat("ü", 64), "x" + strings.Repeat("ü", 100): "x" + strings.Repeat("ü", 63),
	} {
		if got := cleanName(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
