package watchdog

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// notifyTimeout bounds how long a supervisor may take to accept a message.
const notifyTimeout = time.Second

// Notifier tells a process's own supervisor how the process is, as
// sd_notify(3) describes it. Its methods may be called from several goroutines.
type Notifier struct {
	socket string
	// Timeout is within what the supervisor expects WATCHDOG=1 again and
	// again; 0 if it doesn't.
	Timeout time.Duration
}

// NewNotifier reads NOTIFY_SOCKET and WATCHDOG_USEC. Without a supervisor the
// notifier does nothing.
func NewNotifier(getenv func(string) string) Notifier {
	n := Notifier{socket: getenv("NOTIFY_SOCKET")}
	if usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 && n.socket != "" {
		n.Timeout = time.Duration(usec) * time.Microsecond
	}
	return n
}

// Send tells one thing or several, in lines such as "READY=1".
func (n Notifier) Send(state string) error {
	if n.socket == "" {
		return nil
	}
	name := n.socket
	if strings.HasPrefix(name, "@") { // the abstract namespace
		name = "\x00" + name[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil {
		defer conn.Close()
		if err = conn.SetWriteDeadline(time.Now().Add(notifyTimeout)); err == nil {
			_, err = conn.Write([]byte(state))
		}
	}
	if err != nil {
		return fmt.Errorf("notify supervisor: %w", err)
	}
	return nil
}
