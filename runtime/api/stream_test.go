package api_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

var app0 = spec.InstanceID{Job: "web", Process: "app"}

func TestLogsComeCompleteAndInOrder(t *testing.T) {
	const count = 20000
	query := spec.LogQuery{Job: "web", Process: "app", Shard: -1, Last: 5, Grep: "a+&b=<c>", Since: time.Unix(1700000000, 5).UTC()}
	var asked spec.LogQuery
	client, _ := serve(t, &apitest.Backend{LogsFunc: func(_ context.Context, q spec.LogQuery, each func(spec.LogLine) error) error {
		asked = q
		for i := range count {
			if err := each(spec.LogLine{ID: app0, Stream: "stdout", Text: fmt.Sprintf("<line> %d", i)}); err != nil {
				return err
			}
		}
		return nil
	}})
	next := 0
	err := client.Logs(t.Context(), query, func(line spec.LogLine) error {
		if want := fmt.Sprintf("<line> %d", next); line.Text != want {
			return fmt.Errorf("got %q, want %q", line.Text, want)
		}
		next++
		return nil
	})
	if err != nil || next != count {
		t.Errorf("%d lines, %v", next, err)
	}
	if !reflect.DeepEqual(asked, query) {
		t.Errorf("asked %+v", asked)
	}
}

func TestAFollowedLineArrivesAtOnce(t *testing.T) {
	lines := make(chan string)
	client, _ := serve(t, &apitest.Backend{LogsFunc: func(ctx context.Context, _ spec.LogQuery, each func(spec.LogLine) error) error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case text := <-lines:
				if err := each(spec.LogLine{ID: app0, Text: text}); err != nil {
					return err
				}
			}
		}
	}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := make(chan string)
	ended := make(chan error, 1)
	go func() {
		ended <- client.Logs(ctx, spec.LogQuery{Follow: true}, func(l spec.LogLine) error { got <- l.Text; return nil })
	}()
	for _, text := range []string{"one", "two", "three"} {
		lines <- text
		select {
		case line := <-got:
			if line != text {
				t.Errorf("got %q, want %q", line, text)
			}
		case <-ctx.Done():
			t.Fatalf("%q did not arrive", text)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestAnErrorInTheMiddleOfAStreamIsNotItsEnd(t *testing.T) {
	client, _ := serve(t, &apitest.Backend{EventsFunc: func(_ context.Context, q api.EventQuery, each func(spec.Event) error) error {
		if q.Job == "none" {
			return fmt.Errorf("job none: %w", api.ErrNotFound)
		}
		if err := each(spec.Event{ID: "1"}); err != nil {
			return err
		}
		return fmt.Errorf("read events: %w", api.ErrUnavailable)
	}})
	seen := 0
	count := func(spec.Event) error { seen++; return nil }
	if err := client.Events(t.Context(), api.EventQuery{}, count); !errors.Is(err, api.ErrUnavailable) || seen != 1 {
		t.Errorf("%d events, then %v", seen, err)
	}
	if err := client.Events(t.Context(), api.EventQuery{Job: "none"}, count); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("no such job: %v", err)
	}
	stop := errors.New("enough")
	if err := client.Events(t.Context(), api.EventQuery{}, func(spec.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's own error: %v", err)
	}
}

func TestClosingEndsStreamsAndBlockedQueries(t *testing.T) {
	began := make(chan struct{}, 2)
	wait := func(ctx context.Context) error {
		began <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	path := filepath.Join(t.TempDir(), "s")
	server := apitest.ServeAt(t, path, &apitest.Backend{
		InstancesFunc: func(ctx context.Context, _ uint64) ([]spec.Instance, uint64, error) { return nil, 0, wait(ctx) },
		LogsFunc: func(ctx context.Context, _ spec.LogQuery, each func(spec.LogLine) error) error {
			if err := each(spec.LogLine{ID: app0, Text: "first"}); err != nil {
				return err
			}
			return wait(ctx)
		},
	})
	client := api.NewClient(path)
	defer client.Close()
	ended := make(chan error, 2)
	go func() {
		_, _, err := client.Instances(t.Context(), 1)
		ended <- err
	}()
	go func() {
		ended <- client.Logs(t.Context(), spec.LogQuery{Follow: true}, func(spec.LogLine) error { return nil })
	}()
	<-began
	<-began
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, api.ErrUnavailable) {
			t.Errorf("ended with %v", err)
		}
	}
	if err := client.Healthy(t.Context()); !errors.Is(err, api.ErrNoAgent) {
		t.Errorf("after the end: %v", err)
	}
}
