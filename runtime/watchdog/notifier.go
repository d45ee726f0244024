package watchdog

import (
	"fmt"
	"net"
	"strconv"
	"time"
)

// notifyTimeout bounds how long a supervisor may take to accept a message.
const notifyTimeout = time.Second

// Notifier sends a process's state to its own supervisor, systemd or a watchdog,
// as sd_notify(3) describes it. Its methods may be called from several goroutines.
//
// go-systemd's daemon package (36 KiB) would save 20 lines of it, but its
// SdNotify has no deadline: a supervisor that is stopped, as by SIGSTOP, would
// block its sender for good, and with it the end of the process.
type Notifier struct {
	socket string
	// Timeout is the interval within which the supervisor expects WATCHDOG=1;
	// 0 if it doesn't.
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

// Send sends one or several assignments, a line each, such as "READY=1".
func (n Notifier) Send(state string) error {
	if n.socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
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
