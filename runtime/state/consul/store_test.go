package consul_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/consul"
	"github.com/synergymesh/meshrun/runtime/state/consul/consultest"
	"github.com/synergymesh/meshrun/runtime/state/statetest"
)

// patience bounds every wait that is expected to end.
const patience = 30 * time.Second

// server is shared by the tests that do it no harm.
var server *consultest.Server

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests mostly wait for Consul's timers; the machine's cores are no
	// measure of how many can do that at a time.
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	var err error
	if server, err = consultest.Start(context.Background(), consultest.Options{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	server.Kill()
	os.Exit(code)
}

// open returns a store on a server, which ends with the test.
func open(t testing.TB, s *consultest.Server, opts consul.Options) *consul.Store {
	t.Helper()
	opts.Address = s.Address()
	opts.Logger = hclog.NewNullLogger()
	opts.Timeout = cmp.Or(opts.Timeout, patience) // what a busy machine takes is none of a test's business
	store, err := consul.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return store
}

func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	statetest.Run(t, func(t *testing.T) state.Store { return open(t, server, consul.Options{}) }, statetest.Options{})
}

func set(key, value string) state.Op {
	return state.Op{Kind: state.OpSet, Key: key, Value: []byte(value)}
}

func put(t testing.TB, s state.Store, ops ...state.Op) uint64 {
	t.Helper()
	index, err := s.Txn(t.Context(), ops...)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// values returns what is under a prefix as key=value, and the index.
func values(t testing.TB, s state.Store, prefix string) ([]string, uint64) {
	t.Helper()
	entries, index, err := s.List(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	return text(entries), index
}

func text(entries []state.Entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, fmt.Sprintf("%s=%s", e.Key, e.Value))
	}
	return out
}

// seen is what a watch returned.
type seen struct {
	values []string
	index  uint64
	err    error
}

func watch(ctx context.Context, s state.Store, prefix string, after uint64) <-chan seen {
	out := make(chan seen, 1)
	go func() {
		entries, index, err := s.Watch(ctx, prefix, after)
		out <- seen{text(entries), index, err}
	}()
	return out
}

func sleeps(t testing.TB, out <-chan seen) {
	t.Helper()
	select {
	case w := <-out:
		t.Fatalf("the watch returned %q, index %d, error %v; it was to block", w.values, w.index, w.err)
	case <-time.After(300 * time.Millisecond):
	}
}

// wakes waits for the watch, which is to succeed.
func wakes(t testing.TB, out <-chan seen) seen {
	t.Helper()
	select {
	case w := <-out:
		if w.err != nil {
			t.Fatalf("watch: %v", w.err)
		}
		return w
	case <-time.After(patience):
		t.Fatal("the watch was not woken")
		return seen{}
	}
}

func TestTheStoresPrefixIsNoPartOfTheKeys(t *testing.T) {
	t.Parallel()
	root := rand.Text()
	plain := open(t, server, consul.Options{})
	under := open(t, server, consul.Options{Prefix: root + "/"})
	put(t, under, set("a", "1"))
	put(t, plain, set(root+"/b", "2"), set(root+"x", "3"))
	if got, _ := values(t, under, ""); !slices.Equal(got, []string{"a=1", "b=2"}) {
		t.Errorf("under the prefix there are %q", got)
	}
	if e, err := plain.Get(t.Context(), root+"/a"); err != nil || string(e.Value) != "1" {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestTheEnvironmentSaysWhereConsulIsUnlessTheOptionsDo(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", server.Address())
	s, err := consul.Open(t.Context(), consul.Options{Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, set("environment/"+rand.Text(), "v"))
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
	put(t, open(t, server, consul.Options{}), set("environment/"+rand.Text(), "v"))
}

func TestAnAddressMayBeAUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "consul.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	proxy := http.Server{Handler: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: server.Address()})}
	go proxy.Serve(listener) // it returns when closed
	defer proxy.Close()
	s, err := consul.Open(t.Context(), consul.Options{Address: "unix://" + path, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, set("socket/"+rand.Text(), "v"))
}

func TestOpenRefusesWhatIsNoAddress(t *testing.T) {
	if s, err := consul.Open(t.Context(), consul.Options{Address: "gopher://consul"}); err == nil {
		s.Close()
		t.Error("it was taken")
	}
}

func TestCloseEndsAllCallsAndRefusesNewOnes(t *testing.T) {
	t.Parallel()
	s, err := consul.Open(t.Context(), consul.Options{Address: server.Address(), Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	root := rand.Text() + "/"
	_, index := values(t, s, root)
	out := watch(t.Context(), s, root, index)
	sleeps(t, out)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case w := <-out:
		if !errors.Is(w.err, state.ErrClosed) {
			t.Errorf("watch: got error %v, want ErrClosed", w.err)
		}
	case <-time.After(patience):
		t.Error("the watch goes on")
	}
	_, getErr := s.Get(t.Context(), "k")
	_, _, watchErr := s.Watch(t.Context(), "k", 0)
	_, txnErr := s.Txn(t.Context(), set("k", "v"))
	for name, err := range map[string]error{"get": getErr, "watch": watchErr, "txn": txnErr, "renew": s.RenewSession(t.Context(), "x"), "close": s.Close()} {
		if name == "close" && err != nil || name != "close" && !errors.Is(err, state.ErrClosed) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

// The index of a deletion must be exact, though others write at the same time:
// views compare it with those of other changes.
func TestADeletionReturnsAnIndexOfItsOwn(t *testing.T) {
	t.Parallel()
	s := open(t, server, consul.Options{})
	root := rand.Text() + "/"
	const rounds, others = 50, 3
	var mu sync.Mutex // guards taken
	taken := map[uint64]string{}
	take := func(index uint64, by string) {
		mu.Lock()
		defer mu.Unlock()
		if was, ok := taken[index]; ok {
			t.Errorf("index %d was returned for %s and for %s", index, was, by)
		}
		taken[index] = by
	}
	var writers sync.WaitGroup
	for w := range others {
		writers.Go(func() {
			for i := range rounds {
				index, err := s.Txn(t.Context(), set(fmt.Sprintf("%sk%d", root, w), fmt.Sprint(i)))
				if err != nil {
					t.Error(err)
					return
				}
				take(index, fmt.Sprintf("write %d of %d", i, w))
			}
		})
	}
	var last uint64
	for i := range rounds {
		for _, op := range []state.Op{set(root+"k", fmt.Sprint(i)), {Kind: state.OpDelete, Key: root + "k"}} {
			index := put(t, s, op)
			take(index, fmt.Sprintf("%s %d", op.Kind, i))
			if index <= last {
				t.Fatalf("index %d after %d", index, last)
			}
			last = index
		}
	}
	writers.Wait()
	if got, _ := values(t, s, root); len(got) != others {
		t.Errorf("left are %q", got)
	}
}
