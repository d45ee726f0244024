package watchdog

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// pollBatch is how many kernel events are taken at once.
const pollBatch = 256

// poller is one epoll that holds any number of descriptors and is itself one
// descriptor in the runtime's netpoller: one goroutine, and no thread, waits
// for all of them.
type poller struct {
	fd   int
	file *os.File
	wg   sync.WaitGroup
}

// newPoller makes an epoll.
func newPoller(name string) (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	// The netpoller accepts only a non-blocking descriptor.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	return &poller{fd: fd, file: os.NewFile(uintptr(fd), name)}, nil
}

// watch registers a descriptor under a token.
func (p *poller) watch(fd int, events uint32, token uint64) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watch descriptor: %w", err)
	}
	return nil
}

// rearm makes a descriptor that was registered with EPOLLONESHOT fire again.
func (p *poller) rearm(fd int, events uint32, token uint64) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &ev)
}

// run passes every batch of tokens to handle, on one goroutine, until close.
// handle may use the slice until it returns.
func (p *poller) run(handle func(tokens []uint64)) {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	p.wg.Go(func() {
		events := make([]unix.EpollEvent, pollBatch)
		tokens := make([]uint64, 0, pollBatch)
		for {
			tokens = tokens[:0]
			err := conn.Read(func(fd uintptr) bool {
				n, err := unix.EpollWait(int(fd), events, 0)
				if errors.Is(err, unix.EINTR) {
					n, err = unix.EpollWait(int(fd), events, 0)
				}
				if err != nil || n <= 0 {
					return false
				}
				for _, ev := range events[:n] {
					tokens = append(tokens, uint64(uint32(ev.Fd))|uint64(uint32(ev.Pad))<<32)
				}
				return true
			})
			if err != nil {
				return // closed
			}
			handle(tokens)
		}
	})
}

// close ends run and waits for it.
func (p *poller) close() {
	p.file.Close()
	p.wg.Wait()
}
