package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// route is an endpoint of any kind.
type route interface {
	serve(s *Server, mux *http.ServeMux)
}

// routes are all endpoints but /healthz and the snapshot.
func routes() []route {
	return []route{
		&readyEndpoint, &infoEndpoint, &planEndpoint, &applyEndpoint, &planAndApplyEndpoint,
		&jobsEndpoint, &jobEndpoint, &historyEndpoint, &runsEndpoint, &rolloutEndpoint, &rolloutsEndpoint,
		&placementsEndpoint, &instancesEndpoint, &logsEndpoint, &eventsEndpoint,
		&signalEndpoint, &shutdownEndpoint, &upgradeEndpoint,
		&clusterEndpoint, &drainEndpoint, &endSessionEndpoint,
		&enginesEndpoint, &engineEndpoint, &registerEngineEndpoint,
	}
}

// get declares a GET endpoint without a name.
func get[A any](path string, do func(Backend, context.Context) (A, error)) endpoint[none, A] {
	return endpoint[none, A]{
		method: http.MethodGet, path: path,
		do: func(ctx context.Context, b Backend, _ string, _ none) (A, error) { return do(b, ctx) },
	}
}

// getNamed declares a GET endpoint of one named thing.
func getNamed[A any](path string, do func(Backend, context.Context, string) (A, error)) endpoint[none, A] {
	return endpoint[none, A]{
		method: http.MethodGet, path: path,
		do: func(ctx context.Context, b Backend, name string, _ none) (A, error) { return do(b, ctx, name) },
	}
}

// post declares a POST endpoint.
func post[Q, A any](path string, do func(Backend, context.Context, Q) (A, error)) endpoint[Q, A] {
	return endpoint[Q, A]{
		method: http.MethodPost, path: path,
		do: func(ctx context.Context, b Backend, _ string, body Q) (A, error) { return do(b, ctx, body) },
	}
}

// change is post for a change that is finished once it was begun.
func change[Q, A any](path string, do func(Backend, context.Context, Q) (A, error)) endpoint[Q, A] {
	e := post(path, do)
	e.finishes = true
	return e
}

// readyTimeout bounds how long the agent may take to say who it is.
const readyTimeout = 3 * time.Second

var readyEndpoint = get("/ready", func(b Backend, ctx context.Context) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	info, err := b.Info(ctx)
	if err != nil {
		return info, fmt.Errorf("the agent is not ready: %w: %w", err, ErrUnavailable)
	}
	return info, nil
})

// Ready returns who the agent is once it is able to work; ErrUnavailable if
// it isn't yet.
func (c *Client) Ready(ctx context.Context) (Info, error) {
	return readyEndpoint.call(ctx, c, "", none{})
}

var infoEndpoint = get("/v1/info", Backend.Info)

// Info implements Backend.
func (c *Client) Info(ctx context.Context) (Info, error) {
	return infoEndpoint.call(ctx, c, "", none{})
}

var planEndpoint = post("/v1/plan", func(b Backend, ctx context.Context, req PlanRequest) (spec.Plan, error) {
	return b.Plan(ctx, req.from(ctx))
})

// Plan implements Backend.
func (c *Client) Plan(ctx context.Context, req PlanRequest) (spec.Plan, error) {
	return planEndpoint.call(ctx, c, "", req)
}

var applyEndpoint = change("/v1/apply", Backend.Apply)

// Apply implements Backend. What a plan holds only to be shown stays here: the
// agent acts on the encrypted part.
func (c *Client) Apply(ctx context.Context, plan spec.Plan) (ApplyResult, error) {
	plan.Jobs = slices.Clone(plan.Jobs)
	for i := range plan.Jobs {
		plan.Jobs[i].Wanted, plan.Jobs[i].Changes = nil, nil
	}
	return applyEndpoint.call(ctx, c, "", plan)
}

var planAndApplyEndpoint = change("/v1/plan/apply", func(b Backend, ctx context.Context, req PlanRequest) (Done, error) {
	return b.PlanAndApply(ctx, req.from(ctx))
})

// PlanAndApply implements Backend.
func (c *Client) PlanAndApply(ctx context.Context, req PlanRequest) (Done, error) {
	return planAndApplyEndpoint.call(ctx, c, "", req)
}

var jobsEndpoint = get("/v1/jobs", Backend.Jobs)

// Jobs implements Backend.
func (c *Client) Jobs(ctx context.Context) ([]spec.JobVersion, error) {
	return jobsEndpoint.call(ctx, c, "", none{})
}

var jobEndpoint = getNamed("/v1/jobs/{name}", Backend.Job)

// Job implements Backend.
func (c *Client) Job(ctx context.Context, name string) (spec.JobVersion, error) {
	return jobEndpoint.call(ctx, c, name, none{})
}

var historyEndpoint = getNamed("/v1/jobs/{name}/history", Backend.History)

// History implements Backend.
func (c *Client) History(ctx context.Context, name string) ([]spec.JobVersion, error) {
	return historyEndpoint.call(ctx, c, name, none{})
}

var runsEndpoint = getNamed("/v1/jobs/{name}/runs", Backend.Runs)

// Runs implements Backend.
func (c *Client) Runs(ctx context.Context, name string) ([]spec.Run, error) {
	return runsEndpoint.call(ctx, c, name, none{})
}

var rolloutEndpoint = blocking[RolloutStatus]{
	path: "/v1/jobs/{name}/rollout",
	do: func(ctx context.Context, b Backend, name, after string) (RolloutStatus, string, error) {
		status, err := b.Rollout(ctx, name, after)
		return status, status.Tag, err
	},
}

// Rollout implements Backend. It asks again for as long as nothing changes.
func (c *Client) Rollout(ctx context.Context, job, after string) (RolloutStatus, error) {
	status, _, err := rolloutEndpoint.call(ctx, c, job, after)
	return status, err
}

var rolloutsEndpoint = get("/v1/rollouts", Backend.Rollouts)

// Rollouts implements Backend.
func (c *Client) Rollouts(ctx context.Context) ([]spec.Rollout, error) {
	return rolloutsEndpoint.call(ctx, c, "", none{})
}

var placementsEndpoint = get("/v1/placements", Backend.Placements)

// Placements implements Backend.
func (c *Client) Placements(ctx context.Context) ([]spec.Placement, error) {
	return placementsEndpoint.call(ctx, c, "", none{})
}

var instancesEndpoint = blocking[[]spec.Instance]{
	path: "/v1/instances",
	do: func(ctx context.Context, b Backend, _, after string) ([]spec.Instance, string, error) {
		index, err := parseIndex(after)
		if err != nil {
			return nil, "", fmt.Errorf("%w: %w", err, ErrInvalid)
		}
		list, index, err := b.Instances(ctx, index)
		return list, strconv.FormatUint(index, 10), err
	},
}

// Instances implements Backend. It asks again for as long as nothing changes.
func (c *Client) Instances(ctx context.Context, after uint64) ([]spec.Instance, uint64, error) {
	list, mark, err := instancesEndpoint.call(ctx, c, "", strconv.FormatUint(after, 10))
	if err != nil {
		return nil, 0, err
	}
	index, err := parseIndex(mark)
	return list, index, err
}

// parseIndex reads an index; an empty text is 0.
func parseIndex(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	index, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read index of the instances: %q is not a number", text)
	}
	return index, nil
}

var logsEndpoint = stream[spec.LogQuery, spec.LogLine]{
	path: "/v1/logs", query: spec.LogQuery{Shard: -1},
	do: func(ctx context.Context, b Backend, query spec.LogQuery, each func(spec.LogLine) error) error {
		return b.Logs(ctx, query, each)
	},
}

// Logs implements Backend. If the agent goes away, the error is ErrUnavailable.
func (c *Client) Logs(ctx context.Context, query spec.LogQuery, each func(spec.LogLine) error) error {
	return logsEndpoint.call(ctx, c, query, each)
}

var eventsEndpoint = stream[EventQuery, spec.Event]{
	path: "/v1/events",
	do: func(ctx context.Context, b Backend, query EventQuery, each func(spec.Event) error) error {
		return b.Events(ctx, query, each)
	},
}

// Events implements Backend. If the agent goes away, the error is ErrUnavailable.
func (c *Client) Events(ctx context.Context, query EventQuery, each func(spec.Event) error) error {
	return eventsEndpoint.call(ctx, c, query, each)
}

var signalEndpoint = post("/v1/signal", func(b Backend, ctx context.Context, req Signal) (Signalled, error) {
	if !req.Signal.Known() {
		return Signalled{}, fmt.Errorf("%q is not a signal: %w", req.Signal, ErrInvalid)
	}
	n, err := b.Signal(ctx, req.Target, req.Signal)
	return Signalled{Count: n}, err
})

// Signal implements Backend.
func (c *Client) Signal(ctx context.Context, target string, signal spec.Signal) (int, error) {
	answer, err := signalEndpoint.call(ctx, c, "", Signal{Target: target, Signal: signal})
	return answer.Count, err
}

var shutdownEndpoint = post("/v1/shutdown", func(b Backend, ctx context.Context, req Shutdown) (none, error) {
	return none{}, b.Shutdown(ctx, req.StopInstances)
})

// Shutdown implements Backend.
func (c *Client) Shutdown(ctx context.Context, stopInstances bool) error {
	_, err := shutdownEndpoint.call(ctx, c, "", Shutdown{StopInstances: stopInstances})
	return err
}

var upgradeEndpoint = post("/v1/upgrade", func(b Backend, ctx context.Context, _ none) (none, error) {
	return none{}, b.Upgrade(ctx)
})

// Upgrade implements Backend.
func (c *Client) Upgrade(ctx context.Context) error {
	_, err := upgradeEndpoint.call(ctx, c, "", none{})
	return err
}

var clusterEndpoint = get("/v1/cluster", Backend.Cluster)

// Cluster implements Backend.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	return clusterEndpoint.call(ctx, c, "", none{})
}

var drainEndpoint = post("/v1/drain", Backend.Drain)

// Drain implements Backend.
func (c *Client) Drain(ctx context.Context, order Drain) (Drained, error) {
	return drainEndpoint.call(ctx, c, "", order)
}

var endSessionEndpoint = endpoint[SessionEnd, none]{
	method: http.MethodPost, path: "/v1/session/end", agentsOnly: true,
	do: func(ctx context.Context, b Backend, _ string, end SessionEnd) (none, error) {
		return none{}, b.EndSession(ctx, end)
	},
}

// EndSession implements Backend.
func (c *Client) EndSession(ctx context.Context, end SessionEnd) error {
	_, err := endSessionEndpoint.call(ctx, c, "", end)
	return err
}

var enginesEndpoint = get("/v1/engines", Backend.Engines)

// Engines implements Backend.
func (c *Client) Engines(ctx context.Context) ([]EngineStatus, error) {
	return enginesEndpoint.call(ctx, c, "", none{})
}

var engineEndpoint = getNamed("/v1/engines/{name}", Backend.Engine)

// Engine implements Backend.
func (c *Client) Engine(ctx context.Context, name string) (EngineStatus, error) {
	return engineEndpoint.call(ctx, c, name, none{})
}

var registerEngineEndpoint = endpoint[spec.Engine, EngineStatus]{
	method: http.MethodPut, path: "/v1/engines/{name}",
	do: func(ctx context.Context, b Backend, name string, engine spec.Engine) (EngineStatus, error) {
		if engine.Name != "" && engine.Name != name {
			return EngineStatus{}, fmt.Errorf("register engine %s: its record names it %q: %w", name, engine.Name, ErrInvalid)
		}
		engine.Name = name
		return b.RegisterEngine(ctx, engine)
	},
}

// RegisterEngine implements Backend.
func (c *Client) RegisterEngine(ctx context.Context, engine spec.Engine) (EngineStatus, error) {
	return registerEngineEndpoint.call(ctx, c, engine.Name, engine)
}
