package consul_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state/consul"
	"github.com/synergymesh/meshrun/runtime/state/consul/consultest"
	"github.com/synergymesh/meshrun/runtime/state/follow"
)

func TestAWatchOutlastsItsQueries(t *testing.T) {
	t.Parallel()
	const wait = 100 * time.Millisecond
	s := open(t, server, consul.Options{Wait: wait})
	root := rand.Text() + "/"
	index := put(t, s, set(root+"a", "1"))
	_, empty := values(t, s, root+"none/")
	// The second begins at an index that no read of its prefix has returned.
	outs := []<-chan seen{watch(t.Context(), s, root, index), watch(t.Context(), s, root+"a", index), watch(t.Context(), s, root+"none/", empty)}
	time.Sleep(5 * wait)
	for _, out := range outs {
		sleeps(t, out)
	}
	put(t, s, set(root+"a", "2"), set(root+"none/b", "1"))
	for i, want := range []string{root + "a=2", root + "a=2", root + "none/b=1"} {
		if w := wakes(t, outs[i]); w.values[0] != want || w.index <= index {
			t.Errorf("watch %d returned %q, index %d", i, w.values, w.index)
		}
	}
}

func TestAWatchIsToldThatABackupWasRestored(t *testing.T) {
	t.Parallel()
	server := start(t, consultest.Options{})
	s := open(t, server, consul.Options{})
	ctx := t.Context()
	put(t, s, set("p/a", "old"), set("same/a", "1"))
	var backup []byte
	if err := server.Call(ctx, http.MethodGet, "/v1/snapshot", nil, &backup); err != nil {
		t.Fatal(err)
	}
	put(t, s, set("p/a", "new"))
	put(t, s, set("p/b", "new"))
	_, index := values(t, s, "p/")
	_, sameIndex := values(t, s, "same/")
	out, same := watch(ctx, s, "p/", index), watch(ctx, s, "same/", sameIndex)

	// A view must follow, too.
	followCtx, cancel := context.WithCancel(ctx)
	updates, followed := make(chan follow.Update, 1), make(chan error, 1)
	go func() { followed <- follow.Watch(followCtx, s, "p/", updates, hclog.NewNullLogger()) }()
	view := follow.NewView[string]("p/")
	view.Apply(<-updates)
	sleeps(t, out)

	if err := server.Call(ctx, http.MethodPut, "/v1/snapshot", backup, nil); err != nil {
		t.Fatal(err)
	}
	w := wakes(t, out)
	if !slices.Equal(w.values, []string{"p/a=old"}) || w.index >= index {
		t.Errorf("the watch returned %q, index %d after %d", w.values, w.index, index)
	}
	view.Apply(<-updates)
	if !slices.Equal(view.Names(), []string{"a"}) {
		t.Errorf("the view shows %v", view.Names())
	}
	cancel()
	if err := <-followed; err != nil {
		t.Error(err)
	}
	sleeps(t, same)

	// Everything goes on from there.
	out = watch(ctx, s, "p/", w.index)
	sleeps(t, out)
	put(t, s, set("p/a", "newer"), set("same/a", "2"))
	if w := wakes(t, out); !slices.Equal(w.values, []string{"p/a=newer"}) {
		t.Errorf("later the watch returned %q", w.values)
	}
	if w := wakes(t, same); !slices.Equal(w.values, []string{"same/a=2"}) {
		t.Errorf("the other watch returned %q", w.values)
	}
}

func TestAWatchEndsWithItsContextWhileItBlocks(t *testing.T) {
	t.Parallel()
	s := open(t, server, consul.Options{})
	root := rand.Text()
	_, index := values(t, s, root)
	ctx, cancel := context.WithCancel(t.Context())
	out := watch(ctx, s, root, index)
	sleeps(t, out)
	cancel()
	select {
	case w := <-out:
		if !errors.Is(w.err, context.Canceled) {
			t.Errorf("got error %v", w.err)
		}
	case <-time.After(patience):
		t.Error("it goes on")
	}
}

// played answers queries with what a test has written down, and notes from
// which index it was asked. What is no progress comes when the wait is over, or
// at once after "early".
type played struct {
	answers []string // index, then key=value@index
	asked   []string
}

// ServeHTTP plays the next answer; after the last it blocks.
func (p *played) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(p.asked) >= len(p.answers) {
		<-r.Context().Done()
		return
	}
	answer, early := strings.CutPrefix(p.answers[len(p.asked)], "early ")
	fields := strings.Fields(answer)
	query := r.URL.Query()
	p.asked = append(p.asked, query.Get("index"))
	if wait, err := time.ParseDuration(query.Get("wait")); err == nil && !early && query.Get("index") == fields[0] {
		time.Sleep(wait)
	}
	w.Header().Set("X-Consul-Index", fields[0])
	if len(fields) == 1 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	var entries []string
	for _, f := range fields[1:] {
		var key, value string
		var at uint64
		if _, err := fmt.Sscanf(strings.NewReplacer("=", " ", "@", " ").Replace(f), "%s %s %d", &key, &value, &at); err != nil {
			panic(err)
		}
		entries = append(entries, fmt.Sprintf(`{"Key": %q, "Value": %q, "ModifyIndex": %d}`, key, base64.StdEncoding.EncodeToString([]byte(value)), at))
	}
	fmt.Fprintf(w, "[%s]", strings.Join(entries, ","))
}

func TestAWatchSleepsThroughWhatIsNoChange(t *testing.T) {
	for name, c := range map[string]struct {
		answers []string
		asked   []string // beside that of Open, and of the list
		want    seen
	}{
		"the wait is over": {
			answers: []string{"9 k=a@9", "9 k=a@9", "9 k=a@9", "12 k=b@12"},
			asked:   []string{"9", "9", "9"}, want: seen{values: []string{"k=b"}, index: 12},
		},
		"a deletion is forgotten": {
			answers: []string{"20 k=a@9", "9 k=a@9", "9 k=a@9", "25 k=b@25"},
			asked:   []string{"20", "", "9"}, want: seen{values: []string{"k=b"}, index: 25},
		},
		"a leader that has not caught up": {
			answers: []string{"20 k=b@20", "9 k=a@9", "20 k=b@20", "25 k=c@25"},
			asked:   []string{"20", "", "20"}, want: seen{values: []string{"k=c"}, index: 25},
		},
		"something else changed beside an empty prefix": {
			answers: []string{"20", "21", "22", "23 k=a@23"},
			asked:   []string{"20", "21", "22"}, want: seen{values: []string{"k=a"}, index: 23},
		},
		"something came and went": {
			answers: []string{"9 k=a@9", "14 k=a@9", "15"},
			asked:   []string{"9", "14"}, want: seen{index: 15},
		},
		"a restored backup, with the last answer of before": {
			answers: []string{"30 k=a@30", "early 30 k=a@30", "9 k=o@9"},
			asked:   []string{"30", ""}, want: seen{values: []string{"k=o"}, index: 9},
		},
		"a restored backup with the same under the prefix, and then a change": {
			answers: []string{"30 k=a@9", "early 30 k=a@9", "9 k=a@9", "12 k=b@12"},
			asked:   []string{"30", "", "9"}, want: seen{values: []string{"k=b"}, index: 12},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &played{answers: append([]string{"5"}, c.answers...)}
			fake := httptest.NewServer(p)
			defer fake.Close()
			wait := 50 * time.Millisecond
			if slices.ContainsFunc(c.answers, func(a string) bool { return strings.HasPrefix(a, "early ") }) {
				wait = time.Hour // so that it is early on a slow machine, too
			}
			s, err := consul.Open(t.Context(), consul.Options{Address: fake.URL, Wait: wait})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			_, index := values(t, s, "k")
			w := wakes(t, watch(t.Context(), s, "k", index))
			if !slices.Equal(w.values, c.want.values) || w.index != c.want.index {
				t.Errorf("got %q, index %d; want %q, index %d", w.values, w.index, c.want.values, c.want.index)
			}
			if asked := p.asked[2:]; !slices.Equal(asked, c.asked) {
				t.Errorf("asked from %q, want %q", asked, c.asked)
			}
		})
	}
}
