package watchdog

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// listen opens the API's socket, or uses the one that was passed on. The lock
// is held, so that an existing socket is unused.
func (w *watchdog) listen(handed *handed) (*net.UnixListener, error) {
	if handed != nil {
		f := os.NewFile(uintptr(handed.Listener), socketName)
		defer f.Close() // FileListener makes its own
		ln, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("take over socket: %w", err)
		}
		u := ln.(*net.UnixListener)
		u.SetUnlinkOnClose(true)
		return u, nil
	}
	path := w.socket()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("protect socket: %w", err)
	}
	return ln, nil
}

// peerListener accepts only the watchdog's own user and root, whatever the
// socket's mode is.
type peerListener struct {
	*net.UnixListener
	log hclog.Logger
}

// Accept returns the next connection of a user who may connect.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.UnixListener.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peerOf(c)
		if err == nil && (uid == 0 || int(uid) == os.Geteuid()) {
			return c, nil
		}
		l.log.Warn("refused a connection", "uid", uid, "error", err)
		c.Close()
	}
}

// peerOf returns the user at the other end of a connection.
func peerOf(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("identify peer: %w", err)
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, cerr); err != nil {
		return 0, fmt.Errorf("identify peer: %w", err)
	}
	return cred.Uid, nil
}
