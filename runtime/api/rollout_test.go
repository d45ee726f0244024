package api_test

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

func TestARolloutCrossesTheSocketAndIsFollowedByItsTag(t *testing.T) {
	status := api.RolloutStatus{
		Job: "shop", Version: 3, Rollout: &spec.Rollout{Job: "shop", Version: 3, State: spec.RolloutWaiting},
		Progress: []spec.Progress{{Process: "web", State: spec.RolloutWaiting, Wanted: 4, Updated: 1, Healthy: 1, Waits: "promote"}},
		Waiting:  map[spec.InstanceID]string{{Job: "shop", Process: "web", Shard: 2}: "the canaries first"},
	}
	if err := status.SetTag(); err != nil || status.Tag == "" {
		t.Fatalf("tag %q, %v", status.Tag, err)
	}
	var asked []string
	client, _ := serve(t, &apitest.Backend{
		RolloutFunc: func(_ context.Context, job, after string) (api.RolloutStatus, error) {
			if asked = append(asked, job+" "+after); job != "shop" {
				return api.RolloutStatus{}, api.Errorf(api.ErrNotFound, "there is no job %q", job)
			}
			return status, nil
		},
		RolloutsFunc:   func(context.Context) ([]spec.Rollout, error) { return []spec.Rollout{*status.Rollout}, nil },
		PlacementsFunc: func(context.Context) ([]spec.Placement, error) { return []spec.Placement{{Job: "shop"}}, nil },
	})
	got, err := client.Rollout(t.Context(), "shop", "")
	if err != nil || !reflect.DeepEqual(got, status) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := client.Rollout(t.Context(), "shop", got.Tag); err != nil || asked[1] != "shop "+status.Tag {
		t.Errorf("asked %q, %v", asked, err)
	}
	if _, err := client.Rollout(t.Context(), "a b", ""); !errors.Is(err, api.ErrNotFound) || asked[2] != "a b " {
		t.Errorf("asked %q, %v", asked, err)
	}
	if records, err := client.Rollouts(t.Context()); err != nil || len(records) != 1 || records[0].State != spec.RolloutWaiting {
		t.Errorf("%+v, %v", records, err)
	}
	if placements, err := client.Placements(t.Context()); err != nil || len(placements) != 1 || placements[0].Job != "shop" {
		t.Errorf("%+v, %v", placements, err)
	}
}

func TestTheTagOfARolloutIsThatOfWhatItSays(t *testing.T) {
	a := api.RolloutStatus{Job: "shop", Version: 3}
	b := a
	for _, s := range []*api.RolloutStatus{&a, &b} {
		if err := s.SetTag(); err != nil {
			t.Fatal(err)
		}
	}
	if a.Tag != b.Tag {
		t.Errorf("the same has tags %q and %q", a.Tag, b.Tag)
	}
	b.Progress = []spec.Progress{{Process: "web"}}
	if err := b.SetTag(); err != nil || a.Tag == b.Tag {
		t.Errorf("another status has the same tag %q, %v", b.Tag, err)
	}
}
