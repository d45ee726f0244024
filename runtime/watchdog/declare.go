package watchdog

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// ErrRefused: the request is invalid, and none of it was done.
var ErrRefused = errors.New("refused")

// refuse returns an error that wraps ErrRefused.
func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// checkBatch refuses a batch with an instance that could not be run as
// declared.
func checkBatch(set []spec.Launch, remove []spec.InstanceID) error {
	seen := make(map[spec.InstanceID]bool, len(set))
	for i := range set {
		l := &set[i]
		if err := checkID(l.ID); err != nil {
			return err
		}
		if seen[l.ID] {
			return refuse("instance %s appears twice in the batch", l.ID)
		}
		seen[l.ID] = true
		if err := checkLaunch(l); err != nil {
			return err
		}
	}
	for _, id := range remove {
		if err := checkID(id); err != nil {
			return err
		}
		if seen[id] {
			return refuse("instance %s is both set and removed in one batch", id)
		}
	}
	return nil
}

func checkID(id spec.InstanceID) error {
	for _, part := range [...]string{id.Job, id.Process} {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "/\x00\n") || len(part) > 200 {
			return refuse("invalid instance name %q", id)
		}
	}
	if id.Shard < 0 {
		return refuse("instance %q has a negative shard number", id)
	}
	if id.Job == AgentID.Job {
		return refuse("instance %s: the job name %q is reserved for meshrun itself", id, AgentID.Job)
	}
	return nil
}

// maxWhy bounds the reason that a launch gives for the end of a generation.
const maxWhy = 1 << 10

func checkLaunch(l *spec.Launch) error {
	id := l.ID
	switch {
	case len(l.Argv) == 0 || l.Argv[0] == "":
		return refuse("instance %s has no command", id)
	case l.Dir != "" && !filepath.IsAbs(l.Dir):
		return refuse("instance %s: directory %q is not absolute", id, l.Dir)
	case l.Restart.Attempts < 0:
		return refuse("instance %s: restart attempts must not be negative, got %d", id, l.Restart.Attempts)
	case l.Restart.Attempts > spec.MaxAttempts:
		return refuse("instance %s: restart attempts %d exceed the maximum of %d: set exhausted = \"retry\" to restart without limit", id, l.Restart.Attempts, spec.MaxAttempts)
	case l.Expire != nil && (len(l.Expire.Why) > maxWhy || strings.ContainsAny(l.Expire.Why, "\x00\n")):
		return refuse("instance %s: the expiry reason must be one line of at most %d bytes", id, maxWhy)
	case l.Watchdog != nil && l.Watchdog.Timeout <= 0:
		return refuse("instance %s: the watchdog timeout must be greater than 0", id)
	}
	switch l.Restart.Policy {
	case spec.RestartAlways, spec.RestartOnFailure, spec.RestartNever:
	default:
		return refuse("instance %s: unknown restart policy %q: want always, on-failure or never", id, l.Restart.Policy)
	}
	switch l.Restart.Exhausted {
	case "", spec.ExhaustedFail, spec.ExhaustedRetry, spec.ExhaustedReschedule:
	default:
		return refuse("instance %s: unknown value %q of restart exhausted: want fail, retry or reschedule", id, l.Restart.Exhausted)
	}
	for _, d := range [...]spec.Duration{l.Restart.Delay, l.Restart.MaxDelay, l.Restart.Window, l.Restart.Stable, l.Stop.Timeout} {
		if d < 0 {
			return refuse("instance %s: durations must not be negative", id)
		}
	}
	if err := checkText(l); err != nil {
		return err
	}
	if err := checkSession(l.Lease); err != nil {
		return refuse("instance %s: invalid lease: %v", id, err)
	}
	if err := checkHooks(l); err != nil {
		return err
	}
	if l.Stop.Signal != "" && signalNumber(l.Stop.Signal) == 0 {
		return refuse("instance %s: unknown stop signal %q: write it like \"SIGTERM\"", id, l.Stop.Signal)
	}
	if l.Reload != nil && signalNumber(l.Reload.Signal) == 0 {
		return refuse("instance %s: unknown reload signal %q: write it like \"SIGHUP\"", id, l.Reload.Signal)
	}
	return nil
}

// checkHooks refuses hooks that could not be run.
func checkHooks(l *spec.Launch) error {
	for i, h := range l.Hooks {
		switch {
		case h.When != spec.HookBeforeStart && h.When != spec.HookAfterStop:
			return refuse("instance %s: unknown hook %q: want before_start or after_stop", l.ID, h.When)
		case hookOf(l, h.When) != &l.Hooks[i]:
			return refuse("instance %s has the hook %s twice", l.ID, h.When)
		case len(h.Argv) == 0 || h.Argv[0] == "":
			return refuse("instance %s: hook %s has no command", l.ID, h.When)
		case h.Timeout <= 0:
			return refuse("instance %s: the timeout of hook %s must be greater than 0", l.ID, h.When)
		}
		for j, a := range h.Argv {
			if strings.ContainsRune(a, 0) {
				return refuse("instance %s: command[%d] of hook %s has a NUL byte", l.ID, j, h.When)
			}
		}
	}
	return nil
}

// checkText refuses text that the kernel cannot take. Its errors contain no
// values, which may be secret.
func checkText(l *spec.Launch) error {
	for i, a := range l.Argv {
		if strings.ContainsRune(a, 0) {
			return refuse("instance %s: command[%d] has a NUL byte", l.ID, i)
		}
	}
	for i, v := range l.Env {
		name, _, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return refuse("instance %s: env[%d] is not written NAME=value", l.ID, i)
		}
		if strings.ContainsRune(v, 0) {
			return refuse("instance %s: environment variable %s has a NUL byte", l.ID, strings.ToValidUTF8(name, "?"))
		}
	}
	if strings.ContainsRune(l.Dir+l.User, 0) {
		return refuse("instance %s: dir or user has a NUL byte", l.ID)
	}
	return nil
}

// signalNumber returns a signal by its name; 0 for an unknown name.
func signalNumber(s spec.Signal) syscall.Signal { return unix.SignalNum(string(s)) }

// declare applies a batch that checkBatch has accepted. When it returns, all of
// it is journalled; the forks come after.
func (s *supervisor) declare(set []spec.Launch, remove []spec.InstanceID, now time.Time) error {
	if s.shutdown != nil {
		return errClosed
	}
	if known := len(s.life.byID); known+len(set) > maxInstances {
		return refuse("%d instances are declared and %d exist: at most %d are allowed", len(set), known, maxInstances)
	}
	for _, id := range remove {
		if in := s.life.byID[id]; in != nil {
			s.life.step(in, evRemove, now)
		}
	}
	for i := range set {
		l := set[i]
		if in := s.life.byID[l.ID]; in == nil {
			s.introduce(&l, now)
		} else if !same(in.launch, &l) || in.Phase == stopping {
			s.change(in, &l, now)
		}
	}
	s.flush()
	return nil
}

// introduce adds a new instance to the registry and the queue of forks.
func (s *supervisor) introduce(l *spec.Launch, now time.Time) {
	in := &instance{keep: keep{Phase: pending}, view: spec.Instance{ID: l.ID, Phase: spec.PhasePending, Since: now.UTC()}}
	in.want(l)
	s.life.byID[l.ID] = in
	s.life.journal.record(in, note{kind: spec.EventDeclared, message: "declared", launch: true})
	s.life.queue.push(in)
}

// change applies another launch to a known instance, with as little
// interruption as that allows.
func (s *supervisor) change(in *instance, l *spec.Launch, now time.Time) {
	old := in.launch
	in.want(l)
	if replaces(old, l) || in.Phase == stopping {
		if in.Old == nil && in.Phase.alive() && hookOf(old, spec.HookAfterStop) != nil {
			in.Old = old
		}
		in.History, in.view.Restarts, in.view.Since = history{}, 0, now.UTC()
		message := "redeclared with a changed command or settings"
		switch {
		case old.Lease != l.Lease:
			message = "redeclared under another lease"
		case old.Hash == l.Hash:
			message = "restart requested"
		}
		s.life.step(in, evReplace, now, note{kind: spec.EventDeclared, message: message, launch: true})
		return
	}
	if in.expires() {
		in.Blame = cmp.Or(l.Expire.Why, "this generation has expired")
		s.retime(in, old, now)
		// One record holds both the launch and its effect, so that a successor
		// does not end the next generation as well.
		if l.Expire.Planned {
			s.life.step(in, evReplace, now, note{kind: spec.EventUpdated, message: in.Blame + ": restarting", launch: true})
			return
		}
		s.life.step(in, evExpire, now, note{kind: spec.EventUpdated, message: in.Blame + ": stopping; the restart policy decides what follows", launch: true})
		return
	}
	n := note{kind: spec.EventUpdated, message: "settings changed; the process keeps running", launch: true}
	if past := *old; past.Expire != nil {
		past.Expire, past.Version = l.Expire, l.Version
		if same(&past, l) {
			n.message = "cleared the restart request for the previous run"
		}
	}
	if old.ReloadHash != l.ReloadHash && l.Reload != nil && (in.Phase == running || in.Phase == starting) {
		n.kind, n.message = spec.EventReloaded, fmt.Sprintf("sent reload signal %s", l.Reload.Signal)
		if err := s.life.kern.Signal(in.proc, signalNumber(l.Reload.Signal)); err != nil {
			n.severity, n.message = spec.Warning, fmt.Sprintf("cannot send the reload signal: %v", err)
		}
	}
	s.retime(in, old, now)
	s.life.journal.record(in, n)
}

// retime applies changed limits and timeouts to timers and processes that exist
// already.
func (s *supervisor) retime(in *instance, old *spec.Launch, now time.Time) {
	if old.Logs != in.launch.Logs {
		s.life.kern.SetLogs(in.view.ID, in.launch.Logs)
	}
	if in.proc != nil && !in.proc.dead && !reflect.DeepEqual(old.Resources, in.launch.Resources) {
		s.life.limits.apply(in)
	}
	switch in.Phase {
	case backoff:
		// Shorten a wait that would be shorter under the new policy.
		soonest := now.Add(in.launch.Restart.MaxDelay.Std())
		if old.Restart != in.launch.Restart && soonest.Before(in.nextAt) {
			in.nextAt, in.view.NextStart = soonest, soonest.UTC()
			s.life.timers.set(in, timerStart, soonest)
		}
	case starting:
		if in.needsReady() && (old.Ready == nil || old.Ready.Timeout != in.launch.Ready.Timeout) {
			s.life.timers.set(in, timerReady, in.view.Started.Add(in.readyTimeout()))
		}
	case running:
		if old.Restart.Stable != in.launch.Restart.Stable {
			in.timeRunning(&s.life.timers, now)
		}
	case stopping, replacing, killing, ceding:
		if old.Stop.Timeout != in.launch.Stop.Timeout && !in.killed && in.Hook != spec.HookAfterStop {
			s.life.timers.set(in, timerStop, now.Add(in.launch.Stop.Timeout.Std()))
		}
	}
}

// signal sends a signal to the groups of instances.
func (s *supervisor) signal(ids []spec.InstanceID, sig spec.Signal) error {
	number := signalNumber(sig)
	if number == 0 {
		return refuse("unknown signal %q: write it like \"SIGHUP\"", sig)
	}
	for _, id := range ids {
		if in := s.life.byID[id]; in == nil {
			return refuse("no instance %s", id)
		} else if in.proc == nil || in.proc.dead {
			return refuse("instance %s has no process: it is %s", id, in.view.Phase)
		} else if in.Hook != "" {
			return refuse("instance %s cannot be signalled while its %s hook runs", id, in.Hook)
		}
	}
	var errs []error
	for _, id := range ids {
		in := s.life.byID[id]
		if err := s.life.kern.Signal(in.proc, number); err != nil {
			errs = append(errs, fmt.Errorf("instance %s: %w", id, err))
			continue
		}
		s.life.journal.record(in, note{kind: spec.EventSignalled, message: fmt.Sprintf("sent %s", sig)})
	}
	return errors.Join(errs...)
}
