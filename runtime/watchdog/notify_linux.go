package watchdog

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// The bounds of what a process may send.
const (
	maxMessages   = 16 // read at once, so that one process does not hold up the loop
	maxMessage    = 4096
	maxStatus     = 512
	maxSocketPath = 107
)

// listenNotify makes a notify socket (sd_notify(3)) at a path.
func listenNotify(path string) (int, error) {
	if len(path) > maxSocketPath {
		return -1, fmt.Errorf("make notify socket: path %s is %d bytes long, %d are allowed: use a shorter data directory",
			path, len(path), maxSocketPath)
	}
	if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return -1, fmt.Errorf("make notify socket: %w", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("make notify socket: %w", err)
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err == nil {
		if err = unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err == nil {
			err = unix.Chmod(path, 0o600)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make notify socket %s: %w", path, err)
	}
	return fd, nil
}

// Messages reads the messages on an instance's notify socket, and arms the
// socket again.
func (k *linuxKernel) Messages(id spec.InstanceID) []notification {
	h := k.held[id]
	if h == nil || h.notify < 0 {
		return nil
	}
	owner := uint32(os.Geteuid())
	var st unix.Stat_t
	if unix.Stat(k.path(id, ".notify"), &st) == nil {
		owner = st.Uid
	}
	var out []notification
	buf := make([]byte, maxMessage)
	oob := make([]byte, 512)
	for range maxMessages {
		n, oobn, _, _, err := unix.Recvmsg(h.notify, buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			break
		}
		uid, ok := senderOf(oob[:oobn])
		if !ok || (uid != 0 && uid != owner && uid != uint32(os.Geteuid())) {
			k.log.Warn("ignored a notification from a user who does not own the instance", "instance", id.String(), "uid", uid)
			continue
		}
		out = append(out, parseNotification(string(buf[:n])))
	}
	if err := k.poll.rearm(h.notify, unix.EPOLLIN|unix.EPOLLONESHOT, h.notifyToken); err != nil {
		k.log.Error("cannot watch a notify socket", "instance", id.String(), "error", err)
	}
	return out
}

// senderOf reads the sender's user, and closes descriptors that were sent
// along.
func senderOf(oob []byte) (uid uint32, ok bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for i := range messages {
		if c, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			uid, ok = c.Uid, true
			continue
		}
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}
	return uid, ok
}

// parseNotification parses a message: lines of NAME=value; it ignores unknown
// names, as sd_notify(3) asks.
func parseNotification(text string) (n notification) {
	for l := range strings.SplitSeq(text, "\n") {
		name, value, _ := strings.Cut(l, "=")
		switch name {
		case "READY":
			n.ready = n.ready || value == "1"
		case "STOPPING":
			n.stopping = n.stopping || value == "1"
		case "WATCHDOG":
			n.alive = n.alive || value == "1"
		case "STATUS":
			n.status, n.hasStatus = strings.ToValidUTF8(value[:min(len(value), maxStatus)], "\ufffd"), true
		case "MAINPID":
			if pid, err := strconv.Atoi(value); err == nil && pid > 1 {
				n.mainPID = pid
			}
		case "WATCHDOG_USEC":
			n.watchdog = microseconds(value)
		case "EXTEND_TIMEOUT_USEC":
			n.extend = microseconds(value)
		}
	}
	return n
}

// microseconds reads a number of microseconds of at most a day; 0 if it isn't one.
func microseconds(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n > uint64(24*time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// ChangeMain switches to the main process that a process named.
func (k *linuxKernel) ChangeMain(old *process, pid int, m marks) (*process, error) {
	st, err := readStat(pid)
	if err != nil {
		return nil, fmt.Errorf("change main process: %w", err)
	}
	found := readMarks(pid)
	own := found[envWatchdog] == k.id && found[envGeneration] == markGeneration(m)
	if !own && st.session != old.session {
		return nil, fmt.Errorf("change main process: process %d does not belong to the instance", pid)
	}
	if k.fence.guards(old) && st.group != old.session {
		return nil, fmt.Errorf("change main process: process %d is in a process group of its own, where a lease does not reach it", pid)
	}
	p, err := k.Find(pid, st.startTicks, k.bootID, m)
	if err != nil {
		return nil, fmt.Errorf("change main process: %w", err)
	}
	if p == nil {
		return nil, fmt.Errorf("change main process: process %d has ended", pid)
	}
	p.session = st.group
	p.group.Store(old.group.Load())
	k.drop(old) // if it is a child of ours, it is reaped as an orphan
	return p, nil
}
