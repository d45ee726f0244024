package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

func TestTheClusterCrossesTheSocketUnchanged(t *testing.T) {
	want := api.Cluster{
		Nodes: []api.NodeStatus{{
			Node: spec.Node{Name: "node-a", Address: "10.0.0.1:7450", Labels: map[string]string{"disk": "ssd"}}, State: api.NodeReady, Instances: 3,
			Primary: true, ControlShards: []int{1}, Exclusive: []string{"web/app/0"}, Session: "s",
		}},
		Primary: "node-a", ControlShards: []string{"", "node-a"},
	}
	engine := api.EngineStatus{Engine: spec.Engine{Name: "a b%", Kind: "renderer", TTL: spec.DefaultEngineTTL}, Node: "node-a"}
	var ordered api.Drain
	var registered spec.Engine
	client, _ := serve(t, &apitest.Backend{ClusterFuncs: apitest.ClusterFuncs{
		ClusterFunc: func(context.Context) (api.Cluster, error) { return want, nil },
		DrainFunc: func(_ context.Context, order api.Drain) (api.Drained, error) {
			ordered = order
			return api.Drained{Changed: true, Warnings: []string{"w"}}, nil
		},
		RegisterEngineFunc: func(_ context.Context, e spec.Engine) (api.EngineStatus, error) { registered = e; return engine, nil },
		EnginesFunc:        func(context.Context) ([]api.EngineStatus, error) { return []api.EngineStatus{engine}, nil },
		EngineFunc: func(_ context.Context, name string) (api.EngineStatus, error) {
			if name != engine.Name {
				return api.EngineStatus{}, api.Errorf(api.ErrNotFound, "no %q", name)
			}
			return engine, nil
		},
	}})
	if got, err := client.Cluster(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("cluster: %+v, %v", got, err)
	}
	order := api.Drain{Node: "node-a", Off: true}
	if got, err := client.Drain(t.Context(), order); err != nil || !got.Changed || len(got.Warnings) != 1 || ordered != order {
		t.Errorf("drain: %+v, %v; ordered %+v", got, err, ordered)
	}
	if got, err := client.RegisterEngine(t.Context(), engine.Engine); err != nil || !reflect.DeepEqual(got, engine) || !reflect.DeepEqual(registered, engine.Engine) {
		t.Errorf("register: %+v, %v; registered %+v", got, err, registered)
	}
	if got, err := client.Engine(t.Context(), "a b%"); err != nil || !reflect.DeepEqual(got, engine) {
		t.Errorf("engine: %+v, %v", got, err)
	}
	if got, err := client.Engines(t.Context()); err != nil || len(got) != 1 {
		t.Errorf("engines: %+v, %v", got, err)
	}
}

func TestASnapshotStreamsBothWays(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 1<<16)
	var got bytes.Buffer
	fail := errors.New("the disk is on fire")
	var early bool
	funcs := apitest.ClusterFuncs{
		SaveSnapshotFunc: func(_ context.Context, w io.Writer) (int, error) {
			if early {
				return 0, fail
			}
			if _, err := io.WriteString(w, text); err != nil {
				return 0, err
			}
			return 17, nil
		},
		RestoreSnapshotFunc: func(_ context.Context, r io.Reader) (int, error) {
			got.Reset()
			_, err := io.Copy(&got, r)
			return 17, err
		},
	}
	b := &apitest.Backend{ClusterFuncs: funcs}
	client, _ := serve(t, b)
	var saved bytes.Buffer
	if keys, err := client.SaveSnapshot(t.Context(), &saved); err != nil || keys != 17 || saved.String() != text {
		t.Errorf("saved %d keys in %d bytes, %v", keys, saved.Len(), err)
	}
	if keys, err := client.RestoreSnapshot(t.Context(), &saved); err != nil || keys != 17 || got.String() != text {
		t.Errorf("restored %d keys of %d bytes, %v", keys, got.Len(), err)
	}
	early = true
	if _, err := client.SaveSnapshot(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "on fire") {
		t.Errorf("an error at the start: %v", err)
	}
	b.SaveSnapshotFunc = func(_ context.Context, w io.Writer) (int, error) {
		_, err := io.WriteString(w, text)
		return 0, errors.Join(err, fmt.Errorf("read: %w", api.ErrUnavailable))
	}
	if _, err := client.SaveSnapshot(t.Context(), io.Discard); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("an error in the middle: %v", err)
	}
	b.RestoreSnapshotFunc = func(context.Context, io.Reader) (int, error) { return 0, api.Errorf(api.ErrInvalid, "there are jobs") }
	if _, err := client.RestoreSnapshot(t.Context(), strings.NewReader(text)); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("refused unread: %v", err)
	}
}
