package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/synergymesh/meshrun/spec"
)

// Healthy returns nil if an agent answers.
func (c *Client) Healthy(ctx context.Context) error {
	res, err := c.send(ctx, http.MethodGet, "/healthz", nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// Ready returns who the agent is once it is able to work; ErrUnavailable if
// it isn't yet.
func (c *Client) Ready(ctx context.Context) (Info, error) {
	return call[Info](ctx, c, http.MethodGet, "/ready", nil)
}

// Plan implements Backend.
func (c *Client) Plan(ctx context.Context, req PlanRequest) (spec.Plan, error) {
	return call[spec.Plan](ctx, c, http.MethodPost, "/v1/plan", req)
}

// Apply implements Backend. What a plan holds only to be shown stays here: the
// agent acts on what it sealed.
func (c *Client) Apply(ctx context.Context, plan spec.Plan) (ApplyResult, error) {
	plan.Jobs = slices.Clone(plan.Jobs)
	for i := range plan.Jobs {
		plan.Jobs[i].Wanted, plan.Jobs[i].Changes = nil, nil
	}
	return call[ApplyResult](ctx, c, http.MethodPost, "/v1/apply", plan)
}

// PlanAndApply implements Backend.
func (c *Client) PlanAndApply(ctx context.Context, req PlanRequest) (Done, error) {
	return call[Done](ctx, c, http.MethodPost, "/v1/plan/apply", req)
}

// Jobs implements Backend.
func (c *Client) Jobs(ctx context.Context) ([]spec.JobVersion, error) {
	return call[[]spec.JobVersion](ctx, c, http.MethodGet, "/v1/jobs", nil)
}

// Job implements Backend.
func (c *Client) Job(ctx context.Context, name string) (spec.JobVersion, error) {
	return call[spec.JobVersion](ctx, c, http.MethodGet, "/v1/jobs/"+url.PathEscape(name), nil)
}

// Runs implements Backend.
func (c *Client) Runs(ctx context.Context, name string) ([]spec.Run, error) {
	return call[[]spec.Run](ctx, c, http.MethodGet, "/v1/jobs/"+url.PathEscape(name)+"/runs", nil)
}

// History implements Backend.
func (c *Client) History(ctx context.Context, name string) ([]spec.JobVersion, error) {
	return call[[]spec.JobVersion](ctx, c, http.MethodGet, "/v1/jobs/"+url.PathEscape(name)+"/history", nil)
}

// Instances implements Backend. It asks again for as long as nothing changes.
func (c *Client) Instances(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	for {
		list, index, changed, err := c.instances(ctx, after)
		if err != nil || changed {
			return list, index, err
		}
	}
}

// instances asks once; changed is false if nothing has for a long time.
func (c *Client) instances(ctx context.Context, after uint64) (list []spec.Instance, index uint64, changed bool, err error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, blockTimeout+callTimeout)
		defer cancel()
	}
	res, err := c.send(ctx, http.MethodGet, "/v1/instances?after="+strconv.FormatUint(after, 10), nil)
	if err != nil {
		return nil, 0, false, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNoContent {
		return nil, after, false, nil
	}
	if index, err = strconv.ParseUint(res.Header.Get(indexHeader), 10, 64); err != nil {
		return nil, 0, false, fmt.Errorf("read index of the instances: %w", err)
	}
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		return nil, 0, false, c.sendError(ctx, err)
	}
	return list, index, true, nil
}

// Logs implements Backend. If the agent goes away, the error is ErrUnavailable.
func (c *Client) Logs(ctx context.Context, query spec.LogQuery, each func(spec.LogLine) error) error {
	return follow(ctx, c, "/v1/logs", query, each)
}

// Events implements Backend. If the agent goes away, the error is ErrUnavailable.
func (c *Client) Events(ctx context.Context, query EventQuery, each func(spec.Event) error) error {
	return follow(ctx, c, "/v1/events", query, each)
}

// follow reads a stream to its end.
func follow[T any](ctx context.Context, c *Client, path string, query any, each func(T) error) error {
	text, err := json.Marshal(query)
	if err != nil {
		return fmt.Errorf("encode query: %w", err)
	}
	res, err := c.send(ctx, http.MethodGet, path+"?"+queryParam+"="+url.QueryEscape(string(text)), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	dec := json.NewDecoder(res.Body)
	for {
		var value T
		err := dec.Decode(&value)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return c.sendError(ctx, err)
		}
		if err := each(value); err != nil {
			return err
		}
	}
	return trailerError(res)
}

// trailerError returns the error that ended a stream; its body was read.
func trailerError(res *http.Response) error {
	text := res.Trailer.Get(errorTrailer)
	if text == "" {
		return nil
	}
	wire := new(Error)
	if err := json.Unmarshal([]byte(text), wire); err != nil {
		return fmt.Errorf("the stream ended with an unreadable error: %.200s", text)
	}
	return wire
}

// Signal implements Backend.
func (c *Client) Signal(ctx context.Context, target string, signal spec.Signal) (int, error) {
	out, err := call[Signalled](ctx, c, http.MethodPost, "/v1/signal", Signal{Target: target, Signal: signal})
	return out.Count, err
}

// Info implements Backend.
func (c *Client) Info(ctx context.Context) (Info, error) {
	return call[Info](ctx, c, http.MethodGet, "/v1/info", nil)
}

// Shutdown implements Backend.
func (c *Client) Shutdown(ctx context.Context, stopInstances bool) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/shutdown", Shutdown{StopInstances: stopInstances})
	return err
}

// Upgrade implements Backend.
func (c *Client) Upgrade(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/upgrade", nil)
	return err
}
