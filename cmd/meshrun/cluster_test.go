package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

// cluster is a backend with what bigCluster shows.
func cluster() *apitest.Backend {
	b := node()
	b.ClusterFunc = func(context.Context) (api.Cluster, error) { return bigCluster(), nil }
	return b
}

func TestTheClusterIsPrintedAsJSON(t *testing.T) {
	stdout, stderr, code := meshrun(t, cluster(), "nodes", "-json")
	var list []api.NodeStatus
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != 0 || len(list) != 3 || list[1].State != api.NodeDraining {
		t.Errorf("nodes: exit %d, %v, %s%s", code, err, stdout, stderr)
	}
	stdout, stderr, code = meshrun(t, cluster(), "leader", "-json")
	var view leaderView
	if err := json.Unmarshal([]byte(stdout), &view); err != nil || code != 0 || view.Primary != "alpha" || len(view.ControlShards) != 16 {
		t.Errorf("leader: exit %d, %v, %s%s", code, err, stdout, stderr)
	}
	b := &apitest.Backend{ClusterFuncs: apitest.ClusterFuncs{EnginesFunc: func(context.Context) ([]api.EngineStatus, error) { return []api.EngineStatus{}, nil }}}
	if stdout, _, code := meshrun(t, b, "engines"); code != 0 || !strings.Contains(stdout, "No engine") {
		t.Errorf("engines: exit %d, %s", code, stdout)
	}
	if stdout, _, code := meshrun(t, b, "engines", "-json"); code != 0 || strings.TrimSpace(stdout) != "[]" {
		t.Errorf("engines -json: exit %d, %s", code, stdout)
	}
}

func TestADrainIsFollowedUntilNoShardIsLeft(t *testing.T) {
	b := cluster()
	var ordered api.Drain
	b.DrainFunc = func(_ context.Context, order api.Drain) (api.Drained, error) {
		ordered = order
		return api.Drained{Changed: true, Warnings: []string{"web/db/0 finds no other node: all others are full"}}, nil
	}
	var turn atomic.Int32
	b.InstancesFunc = func(context.Context, uint64) ([]spec.Instance, uint64, error) {
		n := turn.Add(1)
		here, elsewhere := seen("api", 0, spec.PhaseRunning), seen("api", 1, spec.PhaseRunning)
		here.Node, elsewhere.Node = "beta", "alpha"
		done := seen("setup", 0, spec.PhaseCompleted)
		done.Node = "beta"
		if n >= 3 {
			here.Node = "alpha"
		}
		return []spec.Instance{here, elsewhere, done}, uint64(n), nil
	}
	_, stderr, code := meshrun(t, b, "drain", "-wait", "beta")
	if code != 0 || ordered != (api.Drain{Node: "beta"}) || turn.Load() != 3 {
		t.Errorf("exit %d after %d looks, ordered %+v", code, turn.Load(), ordered)
	}
	for _, part := range []string{"beta is draining", "Warning: web/db/0 finds no other node", "web/api/0  has left, 0 shards to go", "No shard is left on node beta"} {
		if !strings.Contains(stderr, part) {
			t.Errorf("%q is not in:\n%s", part, stderr)
		}
	}
	turn.Store(-1 << 20)
	if _, stderr, code := meshrun(t, b, "drain", "-wait", "-timeout", "50ms", "beta"); code != 1 || !strings.Contains(stderr, "1 shard still on node beta: web/api/0 is running") {
		t.Errorf("one that stays: exit %d, %s", code, stderr)
	}
	if stdout, _, code := meshrun(t, b, "drain", "-off", "-json", "beta"); code != 0 || ordered != (api.Drain{Node: "beta", Off: true}) || !strings.Contains(stdout, `"changed": true`) {
		t.Errorf("off: exit %d, ordered %+v, %s", code, ordered, stdout)
	}
}

func TestADrainTellsWhatHoldsTheShardsUpOnce(t *testing.T) {
	b := cluster()
	why := "move to alpha waits: shard 0 has failed; version 2 has failed: go back with `meshrun revert web`, or apply one that works"
	b.RolloutFunc = func(_ context.Context, job, _ string) (api.RolloutStatus, error) {
		return api.RolloutStatus{Job: job, Waiting: map[spec.InstanceID]string{id("api", 1): why, id("api", 2): why}}, nil
	}
	term, _, errOut := testTerm(nil)
	client := api.NewClient(filepath.Join(apitest.Serve(t, b), "agent.sock"))
	defer client.Close()
	h := &holdups{term: term, client: client}
	h.waitFor([]spec.Instance{{ID: id("api", 1)}, {ID: id("api", 2)}})
	h.look(t.Context())
	h.look(t.Context())
	if text := errOut.String(); strings.Count(text, "meshrun revert web") != 1 || !strings.Contains(text, "web/api/1  move to alpha waits") {
		t.Errorf("it tells:\n%s", text)
	}
	if note := h.note(); note != "; web/api/1: "+why {
		t.Errorf("at the end of its time it says %q", note)
	}
}

func TestAStatusTellsOfACircleAcrossJobs(t *testing.T) {
	on := func(job, process, other string) spec.JobVersion {
		p := spec.DefaultProcess(process)
		p.DependsOn = []spec.Dependency{spec.DefaultDependency(other)}
		return spec.JobVersion{Version: 1, Job: spec.Job{Name: job, Processes: []spec.Process{p}}}
	}
	b := node()
	b.JobsFunc = func(context.Context) ([]spec.JobVersion, error) {
		return []spec.JobVersion{on("shop", "web", "store/redis"), on("store", "redis", "shop/web")}, nil
	}
	if stdout, _, _ := meshrun(t, b, "status", "shop"); !strings.Contains(stdout, "wait for each other: shop/web → store/redis → shop/web") {
		t.Errorf("it says\n%s", stdout)
	}
}

func TestCompletionKnowsTheNodes(t *testing.T) {
	for word, want := range map[string]string{"": "alpha beta", "b": "beta", "g": ""} {
		stdout, _, _ := meshrun(t, cluster(), "__completeNoDesc", "drain", word)
		if got := strings.Join(strings.Fields(strings.Split(stdout, ":")[0]), " "); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

// snapshotText is a snapshot without keys.
const snapshotText = `{"format":"meshrun snapshot","version":1,"created":"2026-11-24T11:00:00Z","index":7}
{"keys":0,"sha256":"SUM"}
`

func TestASnapshotIsWrittenWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "state.snapshot")
	good := strings.Replace(snapshotText, "SUM", sumOf(strings.SplitAfter(snapshotText, "\n")[0]), 1)
	text, keys := good, 0
	var restored string
	b := &apitest.Backend{ClusterFuncs: apitest.ClusterFuncs{
		SaveSnapshotFunc: func(_ context.Context, w io.Writer) (int, error) {
			_, err := io.WriteString(w, text)
			return keys, err
		},
		RestoreSnapshotFunc: func(_ context.Context, r io.Reader) (int, error) {
			data, err := io.ReadAll(r)
			restored = string(data)
			return 3, err
		},
	}}
	_, stderr, code := meshrun(t, b, "snapshot", "save", file)
	info, err := os.Stat(file)
	if code != 0 || err != nil || info.Mode().Perm() != 0o600 || !strings.Contains(stderr, "Saved 0 keys") {
		t.Fatalf("exit %d, %v: %s", code, err, stderr)
	}
	if _, stderr, code := meshrun(t, b, "snapshot", "save", file); code != 1 || !strings.Contains(stderr, "-force") {
		t.Errorf("again: exit %d, %s", code, stderr)
	}
	text = "half"
	if _, _, code := meshrun(t, b, "snapshot", "save", "-force", file); code != 1 {
		t.Errorf("half of one: exit %d", code)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != good {
		t.Errorf("the good one is overwritten: %q, %v", data, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left over: %v, %v", left, err)
	}
	if _, stderr, code := meshrun(t, b, "snapshot", "restore", file); code != 0 || restored != good || !strings.Contains(stderr, "Restored 3 keys") {
		t.Errorf("restore: exit %d, %q, %s", code, restored, stderr)
	}
	stdout, stderr, code := meshrun(t, nil, "snapshot", "inspect", "-json", file)
	if code != 0 || !strings.Contains(stdout, `"index": 7`) {
		t.Errorf("inspect: exit %d, %s%s", code, stdout, stderr)
	}
	if err := os.WriteFile(file, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	restored = ""
	for _, command := range []string{"inspect", "restore"} {
		if _, stderr, code := meshrun(t, b, "snapshot", command, file); code != 1 || !strings.Contains(stderr, "damaged") || restored != "" {
			t.Errorf("%s half of one: exit %d, %s", command, code, stderr)
		}
	}
}

func TestWhatNodesDoNotTellIsAWarning(t *testing.T) {
	b := &apitest.Backend{
		LogsFunc: func(_ context.Context, _ spec.LogQuery, each func(spec.LogLine) error) error {
			err := each(spec.LogLine{ID: id("app", 0), Text: "here"})
			return errors.Join(err, api.Errorf(api.ErrPartial, "the output of some nodes is missing: beta: it is gone"))
		},
	}
	stdout, stderr, code := meshrun(t, b, "logs", "web")
	if code != 0 || !strings.Contains(stdout, "here") || !strings.Contains(stderr, "Warning: the output of some nodes is missing: beta") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
}

func TestAnAgentElsewhereIsAskedWithCertificateAndToken(t *testing.T) {
	ca := apitest.NewCA(t, "mesh")
	var call api.Call
	server := apitest.ServeTLS(t, &apitest.Backend{ClusterFuncs: apitest.ClusterFuncs{ClusterFunc: func(ctx context.Context) (api.Cluster, error) {
		call = api.CallOf(ctx)
		return bigCluster(), nil
	}}}, ca.Credentials(t, apitest.Leaf{DNS: "alpha"}))
	files := ca.Write(t, t.TempDir(), apitest.Leaf{DNS: "me"})
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("hers\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	address := "https://" + server.Address()
	env := map[string]string{"CONSUL_HTTP_TOKEN_FILE": token, "MESHRUN_ADDR": address, "MESHRUN_CA_FILE": files.CAFile, "MESHRUN_CERT_FILE": files.CertFile, "MESHRUN_KEY_FILE": files.KeyFile}
	term, out, errOut := testTerm(env)
	if code := run(t.Context(), []string{"nodes"}, term); code != 0 || !strings.Contains(out.String(), "gamma") {
		t.Errorf("exit %d: %s", code, errOut)
	}
	if call.Token != "hers" || call.Who == "" || call.Who == "me" {
		t.Errorf("asked as %+v", call)
	}
	term, out, errOut = testTerm(map[string]string{"CONSUL_HTTP_TOKEN": "mine"})
	args := []string{"nodes", "-addr", address, "-ca-file", files.CAFile, "-cert-file", files.CertFile, "-key-file=" + files.KeyFile}
	if code := run(t.Context(), args, term); code != 0 || !strings.Contains(out.String(), "gamma") || call.Token != "mine" {
		t.Errorf("exit %d, token %q: %s", code, call.Token, errOut)
	}
	term, _, errOut = testTerm(nil)
	if code := run(t.Context(), []string{"nodes", "-addr", address}, term); code != 1 || !strings.Contains(errOut.String(), "-cert-file") {
		t.Errorf("without a certificate: exit %d, %s", code, errOut)
	}
}

func sumOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
