package consul_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/consul"
	"github.com/synergymesh/meshrun/runtime/state/consul/consultest"
)

// unavailable demands that every method returns ErrUnavailable, and in time.
func unavailable(t *testing.T, s state.Store) {
	t.Helper()
	const within = patience
	for name, call := range everyCall(s) {
		start := time.Now()
		err := call(t.Context())
		if took := time.Since(start); !errors.Is(err, state.ErrUnavailable) || took > within {
			t.Errorf("%s: got error %v after %v, want ErrUnavailable within %v", name, err, took, within)
		}
	}
}

func everyCall(s state.Store) map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"get":     func(ctx context.Context) error { _, err := s.Get(ctx, "k"); return err },
		"list":    func(ctx context.Context) error { _, _, err := s.List(ctx, "k"); return err },
		"watch":   func(ctx context.Context) error { _, _, err := s.Watch(ctx, "k", 1<<40); return err },
		"txn":     func(ctx context.Context) error { _, err := s.Txn(ctx, set("k", "v")); return err },
		"create":  func(ctx context.Context) error { _, err := s.CreateSession(ctx, state.SessionConfig{}); return err },
		"renew":   func(ctx context.Context) error { return s.RenewSession(ctx, "id") },
		"destroy": func(ctx context.Context) error { return s.DestroySession(ctx, "id") },
		"session": func(ctx context.Context) error { _, err := s.Session(ctx, "id"); return err },
	}
}

func TestAKilledConsulIsUnavailableUntilItIsBack(t *testing.T) {
	t.Parallel()
	server := start(t, consultest.Options{Dir: t.TempDir()})
	var log strings.Builder
	s, err := consul.Open(t.Context(), consul.Options{Address: server.Address(), Logger: hclog.New(&hclog.LoggerOptions{Output: &log})})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := put(t, s, set("k", "v"))
	out := watch(t.Context(), s, "k", before)
	sleeps(t, out)

	server.Kill()
	if w := <-out; !errors.Is(w.err, state.ErrUnavailable) {
		t.Errorf("the watch got error %v, want ErrUnavailable", w.err)
	}
	unavailable(t, s)
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, _ := values(t, s, "k"); len(got) != 1 || got[0] != "k=v" {
		t.Errorf("after its return there are %q", got)
	}
	if after := put(t, s, set("k", "w")); after <= before {
		t.Errorf("index %d after %d", after, before)
	}
	if away, back := strings.Count(log.String(), "Consul is unavailable"), strings.Count(log.String(), "available again"); away != 1 || back != 1 {
		t.Errorf("its absence was logged %d times and its return %d times:\n%s", away, back, log.String())
	}
}

func TestAConsulThatDoesNotAnswerIsUnavailableAfterTheTimeout(t *testing.T) {
	t.Parallel()
	server := start(t, consultest.Options{})
	const timeout = 300 * time.Millisecond
	s := open(t, server, consul.Options{Timeout: timeout, Wait: timeout})
	put(t, open(t, server, consul.Options{}), set("k", "v")) // in whatever time it takes
	freeze(t, server.Pid())
	unavailable(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), timeout/3)
	defer cancel()
	if _, err := s.Get(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, state.ErrUnavailable) {
		t.Errorf("with a deadline of the caller's: got error %v", err)
	}
	if err := syscall.Kill(server.Pid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) { // it is behind by all that was asked meanwhile
		if e, err := s.Get(t.Context(), "k"); err == nil && string(e.Value) == "v" {
			return
		} else if time.Since(start) > patience {
			t.Fatalf("got %+v, %v", e, err)
		}
	}
}

// freeze stops a process and waits until each of its threads has stopped, which
// the signal's sending does not.
func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	running := func() string {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(threads) == 0 {
			t.Fatalf("there are no threads of %d, %v", pid, err)
		}
		for _, thread := range threads {
			stat, err := os.ReadFile(thread)
			if err == nil && !strings.Contains(string(stat), ") T ") {
				return string(stat)
			}
		}
		return ""
	}
	for start := time.Now(); running() != ""; time.Sleep(time.Millisecond) {
		if time.Since(start) > patience {
			t.Fatalf("it runs on: %s", running())
		}
	}
}

func TestOpenSucceedsWhileConsulIsAway(t *testing.T) {
	t.Parallel()
	s, err := consul.Open(t.Context(), consul.Options{Address: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	unavailable(t, s)
}

// A transaction whose answer is lost may have happened, and its error must not
// say otherwise.
func TestALostAnswerIsUnavailableThoughTheChangeIsDone(t *testing.T) {
	t.Parallel()
	key := rand.Text()
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RequestURI, r.URL.Scheme, r.URL.Host = "", "http", server.Address()
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		resp.Body.Close()
		panic(http.ErrAbortHandler)
	}))
	defer cut.Close()
	s, err := consul.Open(t.Context(), consul.Options{Address: cut.URL, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Txn(t.Context(), set(key, "v")); !errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrConflict) {
		t.Errorf("got error %v, want ErrUnavailable", err)
	}
	if got, _ := values(t, open(t, server, consul.Options{}), key); len(got) != 1 {
		t.Errorf("there are %q", got)
	}
}

func TestWhatConsulRefusesIsSortedByWhatHelps(t *testing.T) {
	t.Parallel()
	var code atomic.Int32
	var answer atomic.Value
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(int(code.Load()))
		io.WriteString(w, answer.Load().(string))
	}))
	defer fake.Close()
	code.Store(http.StatusInternalServerError)
	answer.Store("No cluster leader")
	s, err := consul.Open(t.Context(), consul.Options{Address: fake.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, c := range []struct {
		code int
		text string
		want error
	}{
		{500, "No cluster leader", state.ErrUnavailable},
		{500, "rpc error making call: leadership lost while committing log", state.ErrUnavailable},
		{503, "rate limit exceeded, try again later", state.ErrUnavailable},
		{429, "Your IP is issuing too many concurrent connections", state.ErrUnavailable},
		{403, "ACL not found", state.ErrDenied},
		{413, "Request body too large", state.ErrTooLarge},
		{200, "{", state.ErrUnavailable}, // an answer that was cut off
		{301, "", nil},
		{400, "Bad request", nil},
	} {
		code.Store(int32(c.code))
		answer.Store(c.text)
		for name, call := range everyCall(s) {
			if c.code == 200 && name == "destroy" {
				continue // its answer says no more than its code
			}
			err := call(t.Context())
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s: for %d got error %v, want %v", name, c.code, err, c.want)
			}
			if c.want == nil && (err == nil || errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), fmt.Sprint(c.code))) {
				t.Errorf("%s: for %d got error %v, want one that says so", name, c.code, err)
			}
		}
	}
}

// A leader that was stopped for long, and is told to go on, confirms renewals
// until it finds out that there is another one.
func TestARenewalThatADeposedLeaderConfirmsIsNone(t *testing.T) {
	t.Parallel()
	here := open(t, server, consul.Options{})
	id, err := here.CreateSession(t.Context(), state.SessionConfig{Node: "n", Name: rand.Text(), TTL: 10 * time.Second, Behavior: state.BehaviorRelease})
	if err != nil {
		t.Fatal(err)
	}
	deposed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/session/renew/") {
			fmt.Fprintf(w, `[{"ID": %q}]`, id)
			return
		}
		r.RequestURI, r.URL.Scheme, r.URL.Host = "", "http", server.Address()
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		for name, value := range resp.Header {
			w.Header()[name] = value
		}
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	}))
	defer deposed.Close()
	s, err := consul.Open(t.Context(), consul.Options{Address: deposed.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.RenewSession(t.Context(), id); err != nil {
		t.Errorf("the session lives: %v", err)
	}
	if err := here.DestroySession(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := s.RenewSession(t.Context(), id); !errors.Is(err, state.ErrSessionNotFound) {
		t.Errorf("got error %v, want ErrSessionNotFound", err)
	}
}
