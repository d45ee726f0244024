package watchdog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/watchdog/output"
	"github.com/synergymesh/meshrun/spec"
)

// chunkSize is how much output is moved at once: the capacity of a pipe.
const chunkSize = 64 << 10

// pump moves output from the pipes to the files, on a goroutine of its own, so
// that a slow disk does not delay the loop. It copies a chunk out of the pipe,
// writes it, and only then removes it from the pipe, so that no output is lost
// if the watchdog is killed in between; see intent.
type pump struct {
	logDir  string
	poll    *poller
	wake    int     // eventfd: there are requests
	scratch [2]int  // the pipe that chunks are copied to
	null    int     // where chunks are discarded
	buf     []byte  // the pump's goroutine alone
	intent  *intent // the chunk that is being moved
	mirror  *mirror // shows the agent's output; may be nil
	dropped loop.Signal
	closing sync.Once

	mu        sync.Mutex // guards all below, and the requests in sources
	sources   map[spec.InstanceID]*source
	streams   map[uint64]*stream
	requested map[*source]struct{}
	lost      map[spec.InstanceID]uint64
	next      uint64
}

// source is the output of one instance.
type source struct {
	id      spec.InstanceID
	writer  *output.Writer
	streams [2]*stream
	// Requests to the pump's goroutine; guarded by pump.mu.
	limits        *spec.Logs
	flush, remove bool
	done          chan struct{} // closed once removed
}

// stream is one pipe.
type stream struct {
	src  *source
	name string
	fd   int
	hash uint64 // see key; the pump's goroutine alone
}

const wakeToken = 0

// newPump opens the pump; call run to start it. The record of the present chunk
// is in runDir.
func newPump(logDir, runDir string, mirrorTo io.Writer) (*pump, error) {
	p := &pump{logDir: logDir, wake: -1, scratch: [2]int{-1, -1}, null: -1,
		buf: make([]byte, chunkSize), dropped: loop.NewSignal(),
		sources: map[spec.InstanceID]*source{}, streams: map[uint64]*stream{},
		requested: map[*source]struct{}{}, lost: map[spec.InstanceID]uint64{}}
	var err error
	if p.poll, err = newPoller("meshrun-output"); err != nil {
		return nil, err
	}
	var fds [2]int
	if err = unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err == nil {
		p.scratch = fds
		if p.null, err = unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
			if p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
				err = p.poll.watch(p.wake, unix.EPOLLIN, wakeToken)
			}
		}
	}
	if err == nil {
		p.intent, err = openIntent(filepath.Join(runDir, "output"))
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("open output pump: %w", err)
	}
	if mirrorTo != nil {
		p.mirror = newMirror(mirrorTo)
	}
	return p, nil
}

// run starts the pump's goroutine; close ends it.
func (p *pump) run() { p.poll.run(p.turn) }

// close ends the pump and waits. Output in the pipes stays there for a
// successor. It may be called again, as after an upgrade that failed.
func (p *pump) close() { p.closing.Do(p.release) }

func (p *pump) release() {
	p.poll.close()
	if p.mirror != nil {
		p.mirror.close()
	}
	if p.intent != nil {
		p.intent.file.Close()
	}
	for _, s := range p.sources {
		p.closeSource(s)
	}
	for _, fd := range [...]int{p.wake, p.null, p.scratch[0], p.scratch[1]} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// add adds an instance with two pipes, which are read from now on.
func (p *pump) add(id spec.InstanceID, out, err int, limits spec.Logs) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &source{id: id, writer: output.NewWriter(output.Dir(p.logDir, id), limits), done: make(chan struct{})}
	s.streams = [2]*stream{{src: s, name: output.Stdout, fd: out}, {src: s, name: output.Stderr, fd: err}}
	for i, st := range s.streams {
		p.next++
		p.streams[p.next] = st
		if err := p.poll.watch(st.fd, unix.EPOLLIN, p.next); err != nil {
			delete(p.streams, p.next)
			if i == 1 {
				delete(p.streams, p.next-1)
			}
			return err
		}
	}
	p.sources[id] = s
	return nil
}

// request sets a request for a source and wakes the pump.
func (p *pump) request(id spec.InstanceID, note func(*source)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sources[id]
	if s == nil {
		return
	}
	note(s)
	p.requested[s] = struct{}{}
	one := [8]byte{1}
	unix.Write(p.wake, one[:]) // if it is full, the pump is awake already
}

func (p *pump) setLimits(id spec.InstanceID, l spec.Logs) {
	p.request(id, func(s *source) { s.limits = &l })
}

func (p *pump) flush(id spec.InstanceID) { p.request(id, func(s *source) { s.flush = true }) }

// remove drains an instance's pipes and closes them, some time later. A new
// source of the same name may be added at once.
func (p *pump) remove(id spec.InstanceID) {
	p.request(id, func(s *source) { s.remove = true; delete(p.sources, id) })
}

// takeDropped returns how many bytes were lost since it was last called.
func (p *pump) takeDropped() map[spec.InstanceID]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	lost := p.lost
	p.lost = map[spec.InstanceID]uint64{}
	return lost
}

// turn handles one batch of readable pipes.
func (p *pump) turn(tokens []uint64) {
	for _, t := range tokens {
		if t == wakeToken {
			var b [8]byte
			unix.Read(p.wake, b[:])
			p.serveRequests()
			continue
		}
		p.mu.Lock()
		st := p.streams[t]
		p.mu.Unlock()
		if st != nil {
			p.move(st)
		}
	}
}

// serveRequests handles the requests for sources.
func (p *pump) serveRequests() {
	p.mu.Lock()
	requested := p.requested
	p.requested = map[*source]struct{}{}
	p.mu.Unlock()
	for s := range requested {
		p.mu.Lock()
		limits, flush, remove := s.limits, s.flush, s.remove
		s.limits, s.flush = nil, false
		if remove {
			delete(p.requested, s) // requested again since, but it is removed now
		}
		p.mu.Unlock()
		if limits != nil {
			s.writer.SetLimits(*limits)
		}
		if flush || remove {
			p.drain(s)
			s.writer.Flush(time.Now())
		}
		if remove {
			p.closeSource(s)
		}
	}
}

// drainBound is how many chunks are drained of a pipe at an exit: more comes
// only from processes that have left the group, and is read as usual.
const drainBound = 16

func (p *pump) drain(s *source) {
	for _, st := range s.streams {
		for range drainBound {
			if !p.move(st) {
				break
			}
		}
	}
}

func (p *pump) closeSource(s *source) {
	p.mu.Lock()
	for t, st := range p.streams {
		if st.src == s {
			delete(p.streams, t)
		}
	}
	p.mu.Unlock()
	for _, st := range s.streams {
		unix.Close(st.fd)
	}
	s.writer.Close()
	close(s.done)
}

// move writes one chunk of a pipe to the files; false if there was none.
func (p *pump) move(st *stream) bool {
	n, err := tee(st.fd, p.scratch[1], chunkSize)
	if n <= 0 || err != nil {
		return false
	}
	got, err := io.ReadFull(fdReader(p.scratch[0]), p.buf[:n])
	if err != nil {
		return false
	}
	if n := p.intent.logged(st, p.buf[:got], output.Dir(p.logDir, st.src.id)); n > 0 {
		p.discard(st.fd, n)
		return true
	}
	now := time.Now()
	p.intent.begin(st, p.buf[:got], now)
	lost := st.src.writer.Write(now, st.name, p.buf[:got])
	p.discard(st.fd, got)
	p.intent.end()
	if p.mirror != nil && st.src.id == AgentID {
		p.mirror.write(p.buf[:got])
	}
	if lost > 0 {
		p.mu.Lock()
		p.lost[st.src.id] += uint64(lost)
		p.mu.Unlock()
		p.dropped.Set()
	}
	return true
}

// discard removes n bytes that are in a pipe.
func (p *pump) discard(fd, n int) {
	for n > 0 {
		m, err := unix.Splice(fd, nil, p.null, nil, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m <= 0 {
			return
		}
		n -= int(m)
	}
}

func tee(from, to, n int) (int64, error) {
	for {
		m, err := unix.Tee(from, to, n, unix.SPLICE_F_NONBLOCK)
		if !errors.Is(err, unix.EINTR) {
			return m, err
		}
	}
}

// fdReader reads a descriptor without a file around it.
type fdReader int

func (f fdReader) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(f), b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n == 0 && err == nil {
			err = io.EOF
		}
		return max(n, 0), err
	}
}
