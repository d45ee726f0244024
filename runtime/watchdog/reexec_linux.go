package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// envReexec carries the numbers of the descriptors through an upgrade.
const envReexec = "MESHRUN_REEXEC"

// handed is what a watchdog passes to the program that replaces it in the same
// process, whose children stay its children.
type handed struct {
	PID      int `json:"pid"`
	Lock     int `json:"lock"`
	Listener int `json:"listener"`
	// Map is a file in memory with Sockets: there is one for each instance with a
	// notify socket, and a variable may have at most 128 KiB.
	Map int `json:"map,omitempty"`
	// Sockets are in the variable itself if an older program passed them on.
	Sockets map[spec.InstanceID]int `json:"sockets,omitempty"`
}

// takeHanded returns what the previous program of this process passed on; nil
// at an ordinary start.
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
	if err := h.readMap(); err != nil {
		return nil, err
	}
	return &h, nil
}

// readMap reads the sockets from their file, and closes it.
func (h *handed) readMap() error {
	if h.Map == 0 {
		return nil
	}
	f := os.NewFile(uintptr(h.Map), "handed")
	defer f.Close()
	// The descriptor's offset is where the predecessor stopped writing.
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read handed sockets: %w", err)
	}
	if err := json.NewDecoder(f).Decode(&h.Sockets); err != nil {
		return fmt.Errorf("read handed sockets: %w", err)
	}
	return nil
}

// reexec replaces the program by the installed one. Until the loop has ended it
// can fail without effect. If it fails later, the watchdog ends, and the agent
// or systemd starts a successor that adopts the running instances.
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
	fd, err := unix.MemfdCreate("meshrun-handed", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("hand on sockets: %w", err)
	}
	list := os.NewFile(uintptr(fd), "handed")
	defer list.Close()
	err = w.super.do(context.Background(), func() { w.super.beginShutdown(true, time.Now()) })
	if err != nil {
		return fmt.Errorf("end the loop: %w", err)
	}
	<-w.super.done
	w.log.Info("upgrading to the installed program", "path", path)
	// Nothing may be in progress: answer all requests, write all output.
	w.ln.SetUnlinkOnClose(false)
	w.answers.drain(w.http)
	h := handed{PID: os.Getpid(), Lock: int(w.lock.Fd()), Listener: int(ln.Fd()), Map: fd, Sockets: w.kern.sockets()}
	w.kern.poll.close()
	w.pump.close()
	w.journal.close()
	if err := json.NewEncoder(list).Encode(h.Sockets); err != nil {
		return fmt.Errorf("hand on sockets: %w", err)
	}
	env, err := h.environ()
	if err != nil {
		return err
	}
	err = syscall.Exec(path, os.Args, env)
	w.log.Error("cannot execute the new program; continuing with the old one", "path", path, "error", err)
	err = errors.Join(err, syscall.Exec("/proc/self/exe", os.Args, env))
	return fmt.Errorf("upgrade: %w: the next watchdog adopts the running instances", err)
}

// environ makes the descriptors inheritable, and returns the environment that
// names them.
func (h *handed) environ() ([]string, error) {
	fds := []int{h.Lock, h.Listener, h.Map}
	for _, fd := range h.Sockets {
		fds = append(fds, fd)
	}
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return nil, fmt.Errorf("hand on descriptor: %w", err)
		}
	}
	inline := *h
	inline.Sockets = nil
	b, err := json.Marshal(inline)
	if err != nil {
		return nil, fmt.Errorf("hand on descriptors: %w", err)
	}
	return append(os.Environ(), envReexec+"="+string(b)), nil
}

// sockets returns the notify sockets, so that no message is lost during an
// upgrade.
func (k *linuxKernel) sockets() map[spec.InstanceID]int {
	out := map[spec.InstanceID]int{}
	for id, h := range k.held {
		if h.notify >= 0 {
			out[id] = h.notify
		}
	}
	return out
}

// closeHanded closes passed-on sockets that no instance uses.
func (k *linuxKernel) closeHanded() {
	for id, fd := range k.inherited {
		unix.Close(fd)
		delete(k.inherited, id)
	}
}
