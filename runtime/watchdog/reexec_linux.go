package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// envReexec carries the descriptors over an upgrade.
const envReexec = "MESHRUN_REEXEC"

// handed is what a watchdog hands to the program that replaces it: it stays
// the same process, so its children stay its children.
type handed struct {
	PID      int                     `json:"pid"`
	Lock     int                     `json:"lock"`
	Listener int                     `json:"listener"`
	Sockets  map[spec.InstanceID]int `json:"sockets,omitempty"`
}

// takeHanded returns what a predecessor in this process handed on; nil if this
// is a start like any other.
func takeHanded() (*handed, error) {
	text := os.Getenv(envReexec)
	os.Unsetenv(envReexec)
	if text == "" {
		return nil, nil
	}
	var h handed
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		return nil, fmt.Errorf("read %s: %w", envReexec, err)
	}
	if h.PID != os.Getpid() {
		return nil, nil // inherited by mistake
	}
	return &h, nil
}

// reexec replaces the program by what is installed now. Until the loop has
// ended it can fail and everything goes on; from then on it does not return.
func (w *watchdog) reexec() error {
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find program: %w", err)
	}
	path = strings.TrimSuffix(path, " (deleted)")
	if err := executable(path); err != nil {
		return fmt.Errorf("check new program: %w", err)
	}
	ln, err := w.ln.File()
	if err != nil {
		return fmt.Errorf("hand on socket: %w", err)
	}
	defer ln.Close()
	err = w.loop.do(context.Background(), func() { w.loop.beginHalt(true, time.Now()) })
	if err != nil {
		return fmt.Errorf("leave processes: %w", err)
	}
	<-w.loop.done
	w.log.Info("going on as the installed program", "path", path)
	// Nothing may be in anybody's hands: answers are given, output is written.
	w.ln.SetUnlinkOnClose(false)
	w.answers.drain(w.http)
	h := handed{PID: os.Getpid(), Lock: int(w.lock.Fd()), Listener: int(ln.Fd()), Sockets: w.kern.sockets()}
	w.kern.poll.close()
	w.pump.close()
	w.journal.close()
	env, err := h.environ()
	if err != nil {
		return err
	}
	err = syscall.Exec(path, os.Args, env)
	w.log.Error("cannot execute the new program; going on with the old one", "path", path, "error", err)
	return errors.Join(err, syscall.Exec("/proc/self/exe", os.Args, env))
}

// environ lets the descriptors through, and says which they are.
func (h *handed) environ() ([]string, error) {
	fds := []int{h.Lock, h.Listener}
	for _, fd := range h.Sockets {
		fds = append(fds, fd)
	}
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return nil, fmt.Errorf("hand on descriptor: %w", err)
		}
	}
	b, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("hand on descriptors: %w", err)
	}
	return append(os.Environ(), envReexec+"="+string(b)), nil
}

// sockets returns the notify sockets: what is said while the program is
// replaced must not be lost.
func (k *linuxKernel) sockets() map[spec.InstanceID]int {
	out := map[spec.InstanceID]int{}
	for id, h := range k.held {
		if h.notify >= 0 {
			out[id] = h.notify
		}
	}
	return out
}

// closeHanded closes handed sockets that nobody took.
func (k *linuxKernel) closeHanded() {
	for id, fd := range k.inherited {
		unix.Close(fd)
		delete(k.inherited, id)
	}
}
