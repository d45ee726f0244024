package watchdog

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Boottime returns the time on CLOCK_BOOTTIME: the time since boot, including
// the time that the machine was suspended. It is the clock of spec.Lease.
func Boottime() time.Duration {
	var ts unix.Timespec
	// It fails only where the clock does not exist; then every lease has expired.
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 1<<63 - 1
	}
	return time.Duration(ts.Nano())
}

// bootClock is a timer of CLOCK_BOOTTIME in the runtime's netpoller. A
// time.Timer would not do: its clock stops while the machine is suspended.
type bootClock struct {
	fd   int
	file *os.File
}

// newBootClock makes the timer.
func newBootClock() (*bootClock, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("create lease timer: %w", err)
	}
	return &bootClock{fd: fd, file: os.NewFile(uintptr(fd), "lease-timer")}, nil
}

// Now is the time since boot.
func (c *bootClock) Now() time.Duration { return Boottime() }

// Alarm sets the alarm. The kernel accepts every time, and the descriptor stays
// open as long as alarms are set.
func (c *bootClock) Alarm(at time.Duration) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	_ = unix.TimerfdSettime(c.fd, unix.TFD_TIMER_ABSTIME, &spec, nil)
}

// Wait blocks until the alarm goes off.
func (c *bootClock) Wait() bool {
	var count [8]byte
	_, err := c.file.Read(count[:])
	return err == nil
}

// Close ends Wait.
func (c *bootClock) Close() { c.file.Close() }

var _ clock = (*bootClock)(nil)
