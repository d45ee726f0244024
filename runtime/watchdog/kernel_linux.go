package watchdog

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// eventQueue bounds the batches of kernel events that wait for the loop.
const eventQueue = 64

// linuxKernel implements kernel. Only the loop's goroutine calls its methods;
// the poller's goroutine only passes tokens on.
type linuxKernel struct {
	log          hclog.Logger
	id           string // of this watchdog's data directory
	runDir       string
	bootID       string
	spawner      *spawner
	oomProtected bool // the kernel is told to spare this process when memory is short

	fence     *fence
	poll      *poller
	pump      *pump
	events    chan []kernelEvent
	closed    chan struct{} // closed by close
	nextToken uint64
	held      map[spec.InstanceID]*held
	inherited map[spec.InstanceID]int // notify sockets passed on by an upgrade
	groups    groups
}

// held is what an instance keeps across its generations.
type held struct {
	out, err    int // the FIFOs, read-write, non-blocking
	notify      int // the notify socket, or -1
	notifyToken uint64
}

// notifyBit marks the tokens of notify sockets.
const notifyBit = 1 << 63

// newLinuxKernel opens what the watchdog needs of the kernel.
func newLinuxKernel(log hclog.Logger, id, runDir, cgroupFile string, p *pump) (*linuxKernel, error) {
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	poll, err := newPoller("meshrun-events")
	if err != nil {
		return nil, err
	}
	spawner, err := newSpawner() // before there are descriptors of instances
	if err != nil {
		poll.close()
		return nil, err
	}
	k := &linuxKernel{log: log, id: id, runDir: runDir, bootID: boot, spawner: spawner, poll: poll, pump: p,
		oomProtected: isOOMProtected(), events: make(chan []kernelEvent, eventQueue), closed: make(chan struct{}),
		held: map[spec.InstanceID]*held{}, inherited: map[spec.InstanceID]int{}, groups: newGroups(id, cgroupFile)}
	if err := k.groups.tree.Resume(); err != nil {
		log.Warn("cannot find the cgroups of running instances: their limits stay unchanged", "error", err)
	}
	clock, err := newBootClock()
	if err != nil {
		poll.close()
		spawner.close()
		return nil, err
	}
	k.fence = newFence(log.Named("fence"), clock, &leaseFile{path: filepath.Join(runDir, "leases"), boot: boot}, k.Signal)
	k.fence.open()
	poll.run(k.deliver)
	return k, nil
}

// deliver passes a batch to the loop, and waits while the loop is busy.
func (k *linuxKernel) deliver(tokens []uint64) {
	batch := make([]kernelEvent, len(tokens))
	for i, t := range tokens {
		batch[i] = kernelEvent{token: t, notify: t&notifyBit != 0}
	}
	select {
	case k.events <- batch:
	case <-k.closed:
	}
}

// close closes everything and waits; processes keep running.
func (k *linuxKernel) close() {
	close(k.closed)
	k.fence.close()
	k.poll.close()
	k.spawner.close()
	k.closeGroups()
	for _, h := range k.held {
		if h.notify >= 0 {
			unix.Close(h.notify)
		}
	}
}

// Events delivers what happens.
func (k *linuxKernel) Events() <-chan []kernelEvent { return k.events }

// BootID names the running boot.
func (k *linuxKernel) BootID() string { return k.bootID }

// Dropped is ready when output was lost.
func (k *linuxKernel) Dropped() <-chan struct{} { return k.pump.dropped }

// TakeDropped returns what was lost since the last time.
func (k *linuxKernel) TakeDropped() map[spec.InstanceID]uint64 { return k.pump.takeDropped() }

// SetLogs changes how much output of an instance is kept.
func (k *linuxKernel) SetLogs(id spec.InstanceID, l spec.Logs) { k.pump.setLimits(id, l) }

// EndOutput ends the unfinished lines of a process that has exited.
func (k *linuxKernel) EndOutput(id spec.InstanceID) { k.pump.flush(id) }

// runName is the stem of an instance's files in the run directory: a hash,
// since socket paths must be short.
func runName(id spec.InstanceID) string {
	sum := sha256.Sum256([]byte(id.String()))
	return hex.EncodeToString(sum[:8])
}

func (k *linuxKernel) path(id spec.InstanceID, suffix string) string {
	return filepath.Join(k.runDir, runName(id)+suffix)
}

// Hold opens an instance's pipes and notify socket, once.
func (k *linuxKernel) Hold(l *spec.Launch, lives bool) (uint64, error) {
	h := k.held[l.ID]
	if h == nil {
		if err := k.checkDescriptors(l.ID); err != nil && !lives {
			return 0, err
		}
		h = &held{notify: -1}
		var err error
		if h.out, err = openFIFO(k.path(l.ID, ".out")); err != nil {
			return 0, err
		}
		if h.err, err = openFIFO(k.path(l.ID, ".err")); err != nil {
			unix.Close(h.out)
			return 0, err
		}
		if err = k.pump.add(l.ID, h.out, h.err, l.Logs); err != nil {
			unix.Close(h.out)
			unix.Close(h.err)
			return 0, err
		}
		k.held[l.ID] = h
	}
	if h.notify < 0 && wantsNotify(l) {
		fd, ok := k.inherited[l.ID]
		delete(k.inherited, l.ID)
		if !ok {
			var err error
			if fd, err = listenNotify(k.path(l.ID, ".notify")); err != nil {
				return 0, err
			}
		}
		k.nextToken++
		h.notify, h.notifyToken = fd, k.nextToken|notifyBit
		if err := k.poll.watch(fd, unix.EPOLLIN|unix.EPOLLONESHOT, h.notifyToken); err != nil {
			unix.Close(fd)
			h.notify = -1
			return 0, err
		}
	}
	return h.notifyToken, nil
}

// The descriptors that the watchdog needs: for itself, and for each instance
// its pipes, its pidfd, its log, its notify socket, and a temporary one.
const (
	ownDescriptors  = 128
	eachDescriptors = 6
)

// checkDescriptors refuses an instance for which the limit of open files has no
// room. A watchdog at that limit could not answer, adopt, upgrade or restart
// the agent any more.
func (k *linuxKernel) checkDescriptors(id spec.InstanceID) error {
	var l unix.Rlimit
	if id == AgentID || unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return nil
	}
	room := uint64(0)
	if l.Cur > ownDescriptors {
		room = (l.Cur - ownDescriptors) / eachDescriptors
	}
	if uint64(len(k.held)) < room {
		return nil
	}
	return fmt.Errorf("too many instances for the watchdog's limit of %d open files, which is enough for %d: "+
		"raise it (LimitNOFILE=, ulimit -n, or prlimit --pid %d --nofile=N), then restart the instance",
		l.Cur, room, os.Getpid())
}

// signalGroup signals the process group: through the pidfd if the kernel can
// (6.9 and later), else after it has verified the identity.
func signalGroup(p *process, sig syscall.Signal) error {
	if p.pid == p.session {
		err := unix.PidfdSendSignal(p.pidfd, sig, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
		if err == nil || errors.Is(err, unix.ESRCH) {
			return nil // no process is left
		}
		if !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("send %s to group %d: %w", unix.SignalName(sig), p.pid, err)
		}
	}
	if st, err := readStat(p.pid); err == nil && st.startTicks == p.startTicks && st.group == p.session {
		if err := unix.Kill(-p.session, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("send %s to group %d: %w", unix.SignalName(sig), p.session, err)
		}
		return nil
	}
	err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to process %d: %w", unix.SignalName(sig), p.pid, err)
	}
	return nil
}

// Collect reads how a dead process ended.
func (k *linuxKernel) Collect(p *process, last bool) (spec.Exit, bool) {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PIDFD, p.pidfd, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err == nil && info.Signo == 0 {
		return spec.Exit{}, false // it lives
	}
	// Kill the rest of the group while the zombie still pins the group's number.
	if kerr := k.Signal(p, unix.SIGKILL); kerr != nil {
		k.log.Warn("cannot kill the rest of a process group", "pid", p.pid, "error", kerr)
	}
	k.killMarked(p)
	k.fence.release(p)
	if err == nil {
		var ws unix.WaitStatus
		if _, err = unix.Wait4(p.pid, &ws, unix.WNOHANG, nil); err == nil {
			return k.concluded(p, exitOf(ws)), true
		}
	}
	// Not a child: it was adopted, and its new parent reaps it.
	ws, known, later := k.exitOfStranger(p)
	if !known && later && !last {
		return spec.Exit{}, false
	}
	if !known {
		return k.concluded(p, spec.Exit{Unknown: true}), true
	}
	return k.concluded(p, exitOf(ws)), true
}

// exitOfStranger reads how a dead process ended that is not a child: from the
// zombie while there is one, and from the pidfd after it was reaped (Linux 6.15
// and later). Later says that it may become readable.
func (k *linuxKernel) exitOfStranger(p *process) (ws unix.WaitStatus, known, later bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	err := unix.IoctlPidfdInfo(p.pidfd, &info)
	if err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
		return unix.WaitStatus(info.Exit_code), true, false
	}
	if st, serr := readStat(p.pid); serr == nil && st.state == 'Z' && st.startTicks == p.startTicks {
		// Without permission, the kernel shows 0.
		if st.exitCode != 0 || mayInspect(p.pid) {
			return unix.WaitStatus(st.exitCode), true, false
		}
	}
	return 0, false, err == nil
}

// Kill kills one process, and closes it.
func (k *linuxKernel) Kill(p *process) error {
	defer k.drop(p)
	if err := unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	return nil
}

func (k *linuxKernel) drop(p *process) {
	k.fence.release(p)  // which signals through the descriptor
	unix.Close(p.pidfd) // leaves the epoll by itself
	p.pidfd = -1
}

func exitOf(ws unix.WaitStatus) spec.Exit {
	if ws.Signaled() {
		return spec.Exit{Signal: signalName(ws.Signal())}
	}
	return spec.Exit{Code: ws.ExitStatus()}
}

func signalName(sig syscall.Signal) spec.Signal {
	if name := unix.SignalName(sig); name != "" {
		return spec.Signal(name)
	}
	return spec.Signal("SIG" + strconv.Itoa(int(sig))) // real-time signals
}

// maxOrphans bounds how many orphans are reaped in one turn.
const maxOrphans = 256

// Orphans reaps children that this process got because their parents ended. It
// leaves the status of a known child to Collect.
func (k *linuxKernel) Orphans(known func(pid int) (uint64, bool)) []uint64 {
	for range maxOrphans {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err != nil || info.Signo == 0 {
			return nil
		}
		pid := childOf(&info)
		if token, ok := known(pid); ok {
			return []uint64{token} // the kernel reports it first until it is collected
		}
		var ws unix.WaitStatus
		if _, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil); err != nil {
			return nil
		}
		k.log.Trace("reaped an orphan", "pid", pid)
	}
	return nil
}

// childOf reads si_pid: the first field after the three common ones, aligned to
// a pointer.
func childOf(info *unix.Siginfo) int {
	const header = 3 * unsafe.Sizeof(int32(0))
	const align = unsafe.Sizeof(uintptr(0))
	offset := (header + align - 1) / align * align
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), offset)))
}

// becomeSubreaper makes orphaned descendants children of this process.
func becomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	return nil
}

var _ kernel = (*linuxKernel)(nil)
