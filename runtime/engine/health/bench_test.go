package health

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// benchServer makes the test binary be a web server, so that what it costs is
// not taken for what the checks cost.
const benchServer = "MESHRUN_BENCH_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(benchServer) == "" {
		os.Exit(m.Run())
	}
	l, err := net.Listen("tcp4", ":0")
	if err != nil {
		panic(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })}
	go func() { _ = server.Serve(l) }()
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the benchmark ends
}

// cpuTime returns what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHTTPChecks runs 1,000 checks every 5 s, and tells how much of one
// core that takes. Each iteration is one round of all.
func BenchmarkHTTPChecks(b *testing.B) {
	const checks, interval = 1000, 5 * time.Second
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), benchServer+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }()
	line := make([]byte, 256)
	n, err := out.Read(line)
	if err != nil {
		b.Fatal(err)
	}
	port := strings.TrimSpace(string(line[:n]))

	failing := 0
	r := New(Config{Found: func(_ *Target, f Finding) {
		if f.Health == spec.HealthFailing {
			failing++
		}
	}})
	targets := make([]*Target, checks)
	for i := range targets {
		h := spec.DefaultHealth("http")
		// Each instance has an address of its own, as it would.
		h.URL, h.Interval = spec.Literal(fmt.Sprintf("http://127.0.%d.%d:%s/healthz", i/250, i%250+1, port)), spec.Duration(interval)
		targets[i] = &Target{ID: spec.InstanceID{Job: "bench", Process: "web", Shard: i}, Checks: []spec.Health{h}, Started: time.Now()}
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	r.Set(targets, time.Now())
	time.Sleep(2 * interval) // until they are spread

	b.ResetTimer()
	before, begun := cpuTime(b), time.Now()
	for range b.N {
		time.Sleep(interval)
	}
	took := time.Since(begun)
	used := cpuTime(b) - before
	b.ReportMetric(100*float64(used)/float64(took), "%core")
	b.ReportMetric(float64(used.Microseconds())/(took.Seconds()/interval.Seconds())/checks, "µs/check")
	if failing > 0 {
		b.Errorf("%d checks have failed", failing)
	}
}
