package membership

import "time"

// renewLate is how old the last renewal of a node that is a member may be: one
// that failed once, and is repeated.
const renewLate = renewEvery + 2*renewTimeout

// uptime is for how long a session has been renewed without a break. Times are
// CLOCK_BOOTTIME in nanoseconds.
type uptime struct {
	session string // "" before the first renewal, and once it is lost
	since   int64
	renewed int64 // when the last renewal was sent that succeeded
}

// note records a renewal that was sent at a time; with the session "", that
// there is none any more.
func (u *uptime) note(session string, sent int64) {
	if u.session != session || time.Duration(sent-u.renewed) > renewLate {
		u.since = sent
	}
	u.session, u.renewed = session, sent
}

// unbroken returns for how long the node has been a member without a break; 0
// if it is none now.
func (u *uptime) unbroken(now int64) time.Duration {
	if u.session == "" || time.Duration(now-u.renewed) > renewLate {
		return 0
	}
	return time.Duration(now - u.since)
}

func (m *Member) note(session string, sent int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.uptime.note(session, sent)
}

// Unbroken returns for how long the node has been a member without a break; 0
// if it is none now.
func (m *Member) Unbroken() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.uptime.unbroken(m.cfg.Clock())
}

// Silent returns the node's session, "" if it has none, and how long it has not
// been renewed.
func (m *Member) Silent() (session string, silent time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.uptime.session, time.Duration(m.cfg.Clock() - m.uptime.renewed)
}
