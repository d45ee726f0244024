package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// peer is who is at the other end of a connection: a user, by the kernel's
// word, or another agent, by its certificate.
type peer struct {
	uid   uint32
	name  string
	agent bool
	err   error // set if the kernel did not tell
}

type peerKey struct{}

var errNoPeer = errors.New("the kernel does not say who connected")

// withPeer asks the kernel who connected.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, peerOf(conn))
}

func peerOf(conn net.Conn) peer {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return peer{err: errNoPeer}
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return peer{err: fmt.Errorf("read peer credentials: %w", err)}
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = credErr
	}
	if err != nil {
		return peer{err: fmt.Errorf("read peer credentials: %w", err)}
	}
	return peer{uid: cred.Uid, name: userName(cred.Uid)}
}

// peerOfRequest returns who sends a request. On TLS the handshake has let in
// nobody but who has a good certificate.
func peerOfRequest(r *http.Request) peer {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return peer{agent: true, name: cleanName(CertificateName(r.TLS.PeerCertificates[0]))}
	}
	p, known := r.Context().Value(peerKey{}).(peer)
	if !known {
		p.err = errNoPeer
	}
	return p
}

// check returns ErrForbidden unless the peer is another agent, or the user that
// the agent runs as, or root.
func (p peer) check(own uint32) error {
	switch {
	case p.err != nil:
		return fmt.Errorf("%w: %w", ErrForbidden, p.err)
	case p.agent:
		return nil
	case p.uid != own && p.uid != 0:
		return &Error{
			Message: fmt.Sprintf("permission denied: this agent belongs to %s, and you are %s", userName(own), userName(p.uid)),
			Code:    "forbidden",
			Hint:    "run the command as " + orRoot(userName(own)),
		}
	}
	return nil
}

// orRoot names those who may use what a user owns.
func orRoot(owner string) string {
	if owner == "root" {
		return owner
	}
	return owner + " or root"
}

// userName returns a user's name, or "uid N" for one that has none.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil && u.Username != "" {
		return u.Username
	}
	return "uid " + id
}

func ownUID() uint32 { return uint32(os.Geteuid()) }
