// Command synergy stands in for the programs of an automation platform: a
// launcher that serves HTTP, orchestrators that each own a shard, and engines
// that must never run twice. It shows from the inside what meshrun hands a
// process: ports, shard numbers, readiness, keep-alives and fencing tokens.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: synergy migrate|launcher|orchestrator|engine [flags]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "synergy %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func run(ctx context.Context, role string, args []string) error {
	flags := flag.NewFlagSet(role, flag.ExitOnError)
	data := flags.String("data", "", "directory for the platform's files")
	port := flags.Int("port", 0, "port to listen on (launcher)")
	config := flags.String("config", "", "file that SIGHUP reads again (launcher)")
	launcher := flags.String("launcher", "", "the launcher's address")
	shard := flags.Int("shard", 0, "this instance's shard")
	of := flags.Int("of", 1, "how many shards there are")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch role {
	case "migrate":
		return migrate(*data)
	case "launcher":
		return launch(ctx, *port, *config)
	case "orchestrator":
		return orchestrate(ctx, *launcher, *shard, *of)
	case "engine":
		return engine(ctx, *data, *launcher, *shard)
	default:
		return fmt.Errorf("unknown role %q", role)
	}
}

// migrate prepares the platform's directory and ends: a batch process.
func migrate(data string) error {
	if err := os.MkdirAll(filepath.Join(data, "engines"), 0o755); err != nil {
		return fmt.Errorf("prepare data: %w", err)
	}
	fmt.Println("data directory is ready:", data)
	return nil
}

// launch serves HTTP, tells when it is ready, and keeps its watchdog fed.
func launch(ctx context.Context, port int, config string) error {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	registered := make(chan string, 64)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("POST /register/{who}", func(w http.ResponseWriter, r *http.Request) {
		select {
		case registered <- r.PathValue("who"):
		case <-r.Context().Done():
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	alive := time.NewTicker(keepAlive())
	defer alive.Stop()

	fmt.Println("listening on", listener.Addr())
	printConfig(config)
	notify("READY=1\nSTATUS=serving on " + listener.Addr().String())
	members := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			notify("STOPPING=1")
			stopping, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			return server.Shutdown(stopping)
		case err := <-failed:
			return fmt.Errorf("serve: %w", err)
		case who := <-registered:
			members[who] = true
			fmt.Println("registered", who)
			notify(fmt.Sprintf("STATUS=%d members", len(members)))
		case <-reload:
			printConfig(config)
		case <-alive.C:
			notify("WATCHDOG=1")
		}
	}
}

func printConfig(path string) {
	if path == "" {
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "read config:", err)
		return
	}
	fmt.Printf("config %s: %s\n", path, strings.TrimSpace(string(text)))
}

// orchestrate registers its shard with the launcher, and again whenever the
// launcher has been replaced.
func orchestrate(ctx context.Context, launcher string, shard, of int) error {
	name := fmt.Sprintf("orchestrator-%d-of-%d", shard, of)
	for wait := time.Duration(0); ; wait = 10 * time.Second {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if err := register(ctx, launcher, name); err != nil {
			fmt.Fprintln(os.Stderr, "register:", err)
		}
	}
}

// engine claims its shard with its fencing token and refuses to go on if a
// later holder has been there.
func engine(ctx context.Context, data, launcher string, shard int) error {
	token, err := strconv.ParseUint(os.Getenv("MESHRUN_TOKEN"), 10, 64)
	if err != nil {
		return errors.New("no fencing token: is the process declared exclusive?")
	}
	name := fmt.Sprintf("%s-%d", os.Getenv("MESHRUN_PROCESS"), shard)
	claim := filepath.Join(data, "engines", name)
	if last, err := os.ReadFile(claim); err == nil {
		if seen, err := strconv.ParseUint(strings.TrimSpace(string(last)), 10, 64); err == nil && seen > token {
			return fmt.Errorf("token %d is stale: %d has been here", token, seen)
		}
	}
	if err := os.WriteFile(claim, []byte(strconv.FormatUint(token, 10)+"\n"), 0o644); err != nil {
		return fmt.Errorf("claim shard: %w", err)
	}
	fmt.Printf("%s owns its shard with token %d\n", name, token)
	if err := register(ctx, launcher, name); err != nil {
		return err
	}
	<-ctx.Done()
	fmt.Println(name, "gives up its shard")
	return nil
}

func register(ctx context.Context, launcher, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, launcher+"/register/"+name, nil)
	if err != nil {
		return fmt.Errorf("register %s: %w", name, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("register %s: %w", name, err)
	}
	return resp.Body.Close()
}

// notify tells the supervisor something, as sd_notify(3) describes it.
func notify(message string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "notify:", err)
		return
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(message)); err != nil {
		fmt.Fprintln(os.Stderr, "notify:", err)
	}
}

// keepAlive is a third of the time within which the supervisor expects a sign
// of life, or long if it expects none.
func keepAlive() time.Duration {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return time.Hour
	}
	return time.Duration(usec) * time.Microsecond / 3
}
