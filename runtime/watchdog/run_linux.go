package watchdog

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/spec"
)

const (
	socketName = "watchdog.sock"
	lockName   = "watchdog.lock"
)

// Config says what a watchdog runs and where it keeps its files.
type Config struct {
	// DataDir is the data directory of meshrun.
	DataDir string
	// Agent is the command line of the agent, which runs as meshrun/agent/0;
	// empty for none.
	Agent []string
	// Version is the version of this program.
	Version string
	// Logger receives the watchdog's log; nil discards it.
	Logger hclog.Logger
	// AgentOutput also receives the agent's output, besides the agent's log
	// files; may be nil. Output that it does not accept in time is skipped.
	AgentOutput io.Writer
}

// ErrRunning: the data directory has a watchdog already.
var ErrRunning = errors.New("another watchdog is running")

// watchdog is one run: what open opens in order, and close closes in reverse.
type watchdog struct {
	cfg     Config
	log     hclog.Logger
	dir     string // DataDir/watchdog
	lock    *os.File
	kern    *linuxKernel
	pump    *pump
	journal *journal
	super   *supervisor
	ln      *net.UnixListener
	http    *http.Server
	answers activeConns
	upgrade loop.Signal
	wg      sync.WaitGroup // the API, the loop, the systemd reports
	systemd *sdNotifier
}

// Run is the watchdog. It adopts the instances of its predecessor and keeps the
// declared ones running until it is told to end. After SIGTERM, SIGINT or the
// end of ctx it first stops all instances, the agent last. It returns an error
// that wraps ErrRunning if the data directory has a watchdog already, and
// ErrNewerLayout if the directory was written by a newer meshrun.
//
// An upgrade does not return: the process executes the new program.
func Run(ctx context.Context, cfg Config) error {
	w := &watchdog{cfg: cfg, log: cfg.Logger, upgrade: loop.NewSignal()}
	if w.log == nil {
		w.log = hclog.NewNullLogger()
	}
	w.log = w.log.Named("watchdog")
	if err := w.open(); err != nil {
		return errors.Join(err, w.close())
	}
	err := w.serve(ctx)
	return errors.Join(err, w.close())
}

// open does everything up to the point where requests are answered.
func (w *watchdog) open() error {
	handed, err := takeHanded()
	if err != nil {
		return err
	}
	if os.Getenv(envInstance) != "" {
		// Started by the agent, whose process group may be killed: leave that.
		// It fails for a process that leads a group already, which is fine.
		_, _ = unix.Setsid()
	}
	if err := w.openDir(handed); err != nil {
		return err
	}
	r, err := w.openJournal()
	if err != nil {
		return err
	}
	if err := w.openKernel(handed); err != nil {
		return err
	}
	w.super = newSupervisor(w.log, w.kern, w.kern.fence, w.journal, newNonce)
	if w.ln, err = w.listen(handed); err != nil {
		return err
	}
	now := time.Now()
	w.announce(r, handed != nil, now)
	if err := w.super.adopt(r, now); err != nil {
		return err
	}
	w.kern.closeHanded()
	if len(w.cfg.Agent) == 0 {
		return nil
	}
	return w.super.declare([]spec.Launch{agentLaunch(w.cfg.Agent, os.Environ(), agentDir(), w.socket())}, nil, now)
}

// openDir makes the directories and takes the lock.
func (w *watchdog) openDir(handed *handed) error {
	root, err := filepath.Abs(w.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("find data directory: %w", err)
	}
	w.cfg.DataDir, w.dir = root, filepath.Join(root, "watchdog")
	if err := PrepareDataDir(root); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "journal"), 0o700); err != nil {
		return fmt.Errorf("create data directory: %w", err)
	}
	if handed != nil {
		w.lock = os.NewFile(uintptr(handed.Lock), lockName)
		unix.CloseOnExec(handed.Lock)
		return nil
	}
	w.lock, err = takeLock(filepath.Join(w.dir, lockName), root)
	return err
}

// openJournal reads the journal, and opens it for appending.
func (w *watchdog) openJournal() (*replayed, error) {
	dir := filepath.Join(w.dir, "journal")
	r, err := replay(dir)
	if err != nil {
		return nil, err
	}
	retry := loop.Backoff{Min: journalRetry, Max: journalRetry}
	w.journal = &journal{dir: dir, log: w.log, ring: newRing(r.seq), seq: r.seq,
		segmentSize: defaultSegmentSize, segments: defaultSegments, writes: retry, rotations: retry}
	if len(r.damage) == 0 && !r.fresh {
		return r, w.journal.resume(r.newest, r.size)
	}
	return r, nil
}

// openKernel opens the implementation of the kernel interface.
func (w *watchdog) openKernel(handed *handed) error {
	id, err := watchdogID(w.dir, newNonce)
	if err != nil {
		return err
	}
	if err := becomeSubreaper(); err != nil {
		return err
	}
	runDir, err := openRunDir(w.dir, newNonce)
	if err != nil {
		return err
	}
	if w.pump, err = newPump(filepath.Join(w.cfg.DataDir, "logs"), runDir, w.cfg.AgentOutput); err != nil {
		return err
	}
	w.pump.run()
	if w.kern, err = newLinuxKernel(w.log, id, runDir, filepath.Join(w.dir, "cgroups"), w.pump); err != nil {
		return err
	}
	if handed != nil {
		for id, fd := range handed.Sockets {
			unix.CloseOnExec(fd)
			w.kern.inherited[id] = fd
		}
	}
	return nil
}

// announce journals how this run begins.
func (w *watchdog) announce(r *replayed, upgraded bool, now time.Time) {
	how := "started"
	if upgraded {
		how = "upgraded"
	}
	w.journal.recordOwn(spec.EventWatchdogUp, spec.Info, "", fmt.Sprintf("watchdog %s %s as process %d", w.cfg.Version, how, os.Getpid()))
	if len(r.damage) == 0 {
		return
	}
	found := r.damage[0]
	if n := len(r.damage) - 1; n > 0 {
		found += fmt.Sprintf(" (and %d more)", n)
	}
	message := fmt.Sprintf("the journal was damaged: %s; readable instances: %d", found, len(r.entries))
	aside, err := keepBroken(w.journal.dir, r.damage, now)
	if err != nil {
		w.log.Error("cannot keep a copy of the damaged journal", "error", err)
	} else {
		message += "; a copy is in " + aside
	}
	w.journal.recordOwn(spec.EventStateRepaired, spec.Warning, "", message)
}

func (w *watchdog) socket() string { return filepath.Join(w.dir, socketName) }

// serve answers requests and runs the loop until the end.
func (w *watchdog) serve(ctx context.Context) error {
	api := &server{log: w.log.Named("api"), super: w.super, dir: w.journal.dir, ring: w.journal.ring,
		version: w.cfg.Version, started: time.Now().UTC(), upgrade: w.upgrade}
	w.http = &http.Server{Handler: api.handler(), ReadHeaderTimeout: 10 * time.Second, ConnState: w.answers.connState,
		ErrorLog: w.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug})}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)

	w.wg.Go(func() { w.super.run(context.WithoutCancel(ctx)) })
	w.wg.Go(func() { w.http.Serve(&peerListener{UnixListener: w.ln, log: api.log}) })
	w.systemd = newSDNotifier(os.Getenv, w.log)
	w.wg.Go(func() { w.systemd.report(w.super, w.journal.ring) })
	w.log.Info("watchdog is up", "pid", os.Getpid(), "data_dir", w.cfg.DataDir, "socket", w.socket())
	return w.wait(ctx, signals, children)
}

// wait runs until the loop has ended, and handles signals and upgrades.
func (w *watchdog) wait(ctx context.Context, signals, children <-chan os.Signal) error {
	end := ctx.Done()
	var told sync.Once
	stop := func(why string) {
		w.log.Info("stopping all instances, the agent last", "why", why)
		told.Do(func() { w.wg.Go(func() { w.systemd.stopping(w.super) }) })
		// A loop that has ended already has nothing left to stop.
		_ = w.super.do(context.Background(), func() { w.super.beginShutdown(false, time.Now()) })
	}
	for {
		select {
		case <-w.super.done:
			return nil
		case <-end:
			end = nil
			stop("context ended")
		case sig := <-signals:
			if sig != syscall.SIGHUP { // a lost terminal does not end the watchdog
				stop(sig.String())
			}
		case <-children:
			w.super.orphans.Set()
		case <-w.upgrade:
			err := w.reexec()
			select {
			case <-w.super.done:
				return err
			default:
				w.log.Error("cannot upgrade; continuing with the running program", "error", err)
			}
		}
	}
}

// close closes everything that open and serve opened, in reverse.
func (w *watchdog) close() error {
	if w.http != nil {
		w.answers.drain(w.http)
	} else if w.ln != nil {
		w.ln.Close()
	}
	w.wg.Wait()
	if w.kern != nil {
		w.kern.close()
	}
	if w.pump != nil {
		w.pump.close()
	}
	if w.journal != nil {
		w.journal.close()
	}
	if w.lock != nil {
		w.lock.Close()
	}
	return nil
}

// newNonce returns 32 hexadecimal digits that nobody can guess.
func newNonce() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
