package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// RolloutStatus is how far a job is from what is wanted of it, as its
// orchestrator sees it.
type RolloutStatus struct {
	Job string `json:"job"`
	// Version is the one that is wanted; Why, Who and When tell of its making.
	Version uint64    `json:"version"`
	Why     string    `json:"why,omitempty"`
	Who     string    `json:"who,omitempty"`
	When    time.Time `json:"when,omitzero"`
	// Rollout is what is remembered of the version's rollout; nil for a job in
	// which no process has an update block, of which nothing is.
	Rollout *spec.Rollout `json:"rollout,omitempty"`
	// Progress tells of each process, by name.
	Progress []spec.Progress `json:"progress,omitempty"`
	// Waiting says of the instances that aren't as the job wants them why not.
	Waiting map[spec.InstanceID]string `json:"waiting,omitempty"`
	// Reverted is set if the version was made to take the place of a failed one.
	Reverted bool `json:"reverted,omitempty"`
	// Reverting is the version that the job is about to go back to; 0 for none.
	Reverting uint64 `json:"reverting,omitempty"`
	// Tag names all of the above: it is another one as soon as that is.
	Tag string `json:"tag,omitempty"`
}

// State is the state of the rollout as a whole; RolloutDone if none is
// remembered.
func (s *RolloutStatus) State() spec.RolloutState {
	if s.Rollout == nil {
		return spec.RolloutDone
	}
	return s.Rollout.State
}

// Seal sets the tag; who makes a status calls it last.
func (s *RolloutStatus) Seal() error {
	s.Tag = ""
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode rollout of job %s: %w", s.Job, err)
	}
	h := fnv.New64a()
	h.Write(data)
	s.Tag = strconv.FormatUint(h.Sum64(), 36)
	return nil
}

// rollout answers at once, or as soon as the tag is another one; 204 says that
// nothing has changed for a long time.
func (s *Server) rollout(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), blockTimeout)
	defer cancel()
	status, err := s.cfg.Backend.Rollout(ctx, r.PathValue("job"), r.URL.Query().Get("after"))
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		w.WriteHeader(http.StatusNoContent)
	case err != nil:
		s.fail(w, r, err)
	default:
		s.write(w, status)
	}
}

// Rollouts implements Backend.
func (c *Client) Rollouts(ctx context.Context) ([]spec.Rollout, error) {
	return call[[]spec.Rollout](ctx, c, http.MethodGet, "/v1/rollouts", nil)
}

// Placements implements Backend.
func (c *Client) Placements(ctx context.Context) ([]spec.Placement, error) {
	return call[[]spec.Placement](ctx, c, http.MethodGet, "/v1/placements", nil)
}

// Rollout implements Backend. It asks again for as long as nothing changes.
func (c *Client) Rollout(ctx context.Context, job, after string) (RolloutStatus, error) {
	for {
		status, changed, err := c.rollout(ctx, job, after)
		if err != nil || changed {
			return status, err
		}
	}
}

// rollout asks once; changed is false if nothing has for a long time.
func (c *Client) rollout(ctx context.Context, job, after string) (status RolloutStatus, changed bool, err error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, blockTimeout+callTimeout)
		defer cancel()
	}
	res, err := c.send(ctx, http.MethodGet, "/v1/jobs/"+url.PathEscape(job)+"/rollout?after="+url.QueryEscape(after), nil)
	if err != nil {
		return status, false, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNoContent {
		return status, false, nil
	}
	if err := json.NewDecoder(res.Body).Decode(&status); err != nil {
		return status, false, c.sendError(ctx, err)
	}
	return status, true, nil
}
