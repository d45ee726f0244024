package watchdog

import (
	"sync"
	"time"
)

// fakeClock is CLOCK_BOOTTIME in virtual time: it also goes on in sleep.
type fakeClock struct {
	mu    sync.Mutex // guards all below
	boot  time.Time
	slept time.Duration
	at    time.Duration
	timer *time.Timer
	rings chan bool
}

func newFakeClock() *fakeClock { return &fakeClock{boot: time.Now().Add(-time.Hour)} }

func (c *fakeClock) open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rings = make(chan bool, 1)
}

func (c *fakeClock) Now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.boot) + c.slept
}

func (c *fakeClock) Alarm(at time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
	c.set()
}

// set sets the timer; c.mu is held.
func (c *fakeClock) set() {
	if c.timer != nil {
		c.timer.Stop()
	}
	if rings := c.rings; c.at != 0 {
		c.timer = time.AfterFunc(c.at-time.Since(c.boot)-c.slept, func() {
			select {
			case rings <- true:
			default:
			}
		})
	}
}

// sleep lets the machine sleep: no timer but this clock's sees it.
func (c *fakeClock) sleep(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slept += d
	c.set()
}

func (c *fakeClock) Wait() bool {
	c.mu.Lock()
	rings := c.rings
	c.mu.Unlock()
	return <-rings
}

func (c *fakeClock) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	close(c.rings)
}
