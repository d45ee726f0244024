package watchdog

import (
	"context"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// agentGrace is how long the agent is waited for before systemd hears that
	// the service is ready: less than the 90 s that a start may take. Without
	// its agent the watchdog keeps alive what runs all the same.
	agentGrace = time.Minute
	// stopBeat and stopExtension ask for more time while processes are being
	// stopped, which takes as long as their stop rules allow.
	stopBeat      = 10 * time.Second
	stopExtension = time.Minute
)

// What `systemctl status` shows.
const (
	statusWell    = "Keeping processes alive"
	statusNoAgent = "Keeping processes alive; the agent is down and is being restarted"
	statusStops   = "Stopping all processes"
)

// sdNotifier tells the watchdog's own parent, systemd, how it is.
type sdNotifier struct {
	log     hclog.Logger
	tell    func(state string) error
	timeout time.Duration // see Notifier
	deaf    bool          // there is no systemd
}

// newSDNotifier reads the environment. One that was made for an instance of
// meshrun (the agent that started this watchdog) is not for the watchdog.
func newSDNotifier(getenv func(string) string, log hclog.Logger) *sdNotifier {
	to := NewNotifier(getenv)
	return &sdNotifier{log: log.Named("systemd"), tell: to.Send, timeout: to.Timeout,
		deaf: to.socket == "" || getenv(envInstance) != ""}
}

// send tells one thing, such as "READY=1".
func (n *sdNotifier) send(state string) {
	if err := n.tell(state); err != nil {
		n.log.Warn("cannot notify systemd", "state", state, "error", err)
	}
}

// report says READY=1 once the agent is up, and from then on that all is well
// as long as the loop answers: an agent that is down is the watchdog's to bring
// back, and no reason to replace the watchdog. It ends with the loop.
func (n *sdNotifier) report(loop *supervisor, r *ring) {
	if n.deaf {
		return
	}
	shown := n.awaitAgent(loop, r)
	if shown == "" {
		return
	}
	n.send("READY=1\nSTATUS=" + shown)
	if n.timeout == 0 {
		return
	}
	beat := time.NewTicker(n.timeout / 2)
	defer beat.Stop()
	for {
		if status, err := n.status(loop); err == nil {
			state := "WATCHDOG=1"
			if status != shown {
				state, shown = state+"\nSTATUS="+status, status
			}
			n.send(state)
		}
		select {
		case <-beat.C:
		case <-loop.done:
			return
		}
	}
}

// awaitAgent waits until the agent is up, or has had its time, and returns how
// things are then: nothing if the loop has ended.
func (n *sdNotifier) awaitAgent(loop *supervisor, r *ring) string {
	late := time.NewTimer(agentGrace)
	defer late.Stop()
	for {
		_, more := r.wait()
		if status, err := n.status(loop); err == nil && status == statusWell {
			return status
		}
		select {
		case <-more:
		case <-late.C:
			return statusNoAgent
		case <-loop.done:
			return ""
		}
	}
}

// stopping tells that processes are being stopped, and asks for more time as
// long as the loop sees to it. It ends with the loop.
func (n *sdNotifier) stopping(loop *supervisor) {
	if n.deaf {
		return
	}
	n.send("STOPPING=1\nSTATUS=" + statusStops)
	beat := time.NewTicker(stopBeat)
	defer beat.Stop()
	more := "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(stopExtension.Microseconds(), 10)
	for {
		if _, err := n.status(loop); err == nil {
			n.send(more)
		}
		select {
		case <-beat.C:
		case <-loop.done:
			return
		}
	}
}

// status asks the loop how things are; the error says that it does not answer.
func (n *sdNotifier) status(loop *supervisor) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	status := statusWell
	err := loop.do(ctx, func() {
		agent := loop.life.byID[AgentID]
		switch {
		case loop.shutdown != nil && !loop.shutdown.keep:
			status = statusStops
		case agent != nil && agent.Phase != running:
			status = statusNoAgent
		}
	})
	return status, err
}
