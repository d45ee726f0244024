package main

import (
	"context"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

func TestLogsNameTheirInstances(t *testing.T) {
	at := testNow().Add(-time.Minute)
	var asked spec.LogQuery
	b := &apitest.Backend{LogsFunc: func(_ context.Context, q spec.LogQuery, each func(spec.LogLine) error) error {
		asked = q
		for _, line := range []spec.LogLine{
			{ID: id("app", 0), Time: at, Stream: "stdout", Text: "one\x1b[2J"},
			{ID: id("long-process", 12), Time: at, Stream: "stderr", Text: "two"},
			{ID: id("app", 0), Time: at, Stream: "stdout", Text: "three"},
		} {
			if err := each(line); err != nil {
				return err
			}
		}
		return nil
	}}
	stdout, stderr, code := meshrun(t, b, "logs", "-n", "3", "-since", "5m", "-grep", "o|e", "web/app/0")
	want := "app/0    | one\x1b[2J\nlong-process/12 | two\napp/0           | three\n"
	if code != 0 || stdout != want {
		t.Errorf("exit %d %s:\n%s", code, stderr, stdout)
	}
	query := spec.LogQuery{Job: "web", Process: "app", Last: 3, Since: testNow().Add(-5 * time.Minute), Grep: "o|e"}
	if !reflect.DeepEqual(asked, query) {
		t.Errorf("asked %+v", asked)
	}
	stdout, _, _ = meshrun(t, b, "logs", "-json", "web")
	if strings.Count(stdout, "\n") != 3 || !strings.Contains(stdout, `"id":"web/long-process/12"`) {
		t.Errorf("-json:\n%s", stdout)
	}
}

func TestFollowingLogsGoesOnWithTheNextAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	line := func(second int, text string) spec.LogLine {
		return spec.LogLine{ID: id("app", 0), Time: testNow().Add(time.Duration(second) * time.Second), Stream: "stdout", Text: text}
	}
	serve := func(lines ...spec.LogLine) *api.Server {
		return apitest.ServeAt(t, path, &apitest.Backend{LogsFunc: func(ctx context.Context, q spec.LogQuery, each func(spec.LogLine) error) error {
			for _, l := range lines {
				if l.Time.Before(q.Since) {
					continue
				}
				if err := each(l); err != nil {
					return err
				}
			}
			<-ctx.Done()
			return ctx.Err()
		}})
	}
	first := serve(line(1, "a"), line(2, "b"), line(2, "b"))
	client := api.NewClient(path)
	defer client.Close()
	got := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- followLogs(ctx, client, spec.LogQuery{Job: "web", Shard: -1, Follow: true}, func(l spec.LogLine) error {
			got <- l.Text
			return nil
		})
	}()
	want := func(texts ...string) {
		t.Helper()
		for _, text := range texts {
			select {
			case g := <-got:
				if g != text {
					t.Fatalf("got %q, want %q", g, text)
				}
			case <-time.After(time.Minute):
				t.Fatalf("%q did not come", text)
			}
		}
	}
	want("a", "b", "b")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	serve(line(1, "a"), line(2, "b"), line(2, "b"), line(2, "c"), line(3, "d"))
	want("c", "d")
	cancel()
	<-ended
}
