package watchdog

import (
	"context"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// agentGrace is how long to wait for the agent before the service is reported
	// as ready: less than the 90 s that systemd allows for a start. Without its
	// agent the watchdog keeps running instances alive all the same.
	agentGrace = time.Minute
	// stopBeat and stopExtension ask for more time while processes are stopping,
	// which takes as long as their stop timeouts allow.
	stopBeat      = 10 * time.Second
	stopExtension = time.Minute
)

// What `systemctl status` shows.
const (
	statusWell    = "Keeping processes alive"
	statusNoAgent = "Keeping processes alive; the agent is down and is being restarted"
	statusStops   = "Stopping all processes"
)

// sdNotifier reports the watchdog's state to its own parent, systemd.
type sdNotifier struct {
	log     hclog.Logger
	notify  func(state string) error
	timeout time.Duration // see Notifier
	absent  bool          // there is no systemd
}

// newSDNotifier reads the environment. A notify socket of an instance of
// meshrun (the agent that started this watchdog) is not for the watchdog.
func newSDNotifier(getenv func(string) string, log hclog.Logger) *sdNotifier {
	to := NewNotifier(getenv)
	return &sdNotifier{log: log.Named("systemd"), notify: to.Send, timeout: to.Timeout,
		absent: to.socket == "" || getenv(envInstance) != ""}
}

// send sends a state such as "READY=1".
func (n *sdNotifier) send(state string) {
	if err := n.notify(state); err != nil {
		n.log.Warn("cannot notify systemd", "state", state, "error", err)
	}
}

// report sends READY=1 once the agent is up, and from then on WATCHDOG=1 as
// long as the loop answers. An agent that is down is no reason to replace the
// watchdog, which restarts it. report ends with the loop.
func (n *sdNotifier) report(loop *supervisor, r *ring) {
	if n.absent {
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
	n.beat(loop, n.timeout/2, func(status string) {
		state := "WATCHDOG=1"
		if status != shown {
			state, shown = state+"\nSTATUS="+status, status
		}
		n.send(state)
	})
}

// beat calls fn now and then again and again, if the loop answers, with its
// status. It ends with the loop.
func (n *sdNotifier) beat(loop *supervisor, every time.Duration, fn func(status string)) {
	beat := time.NewTicker(every)
	defer beat.Stop()
	for {
		if status, err := n.status(loop); err == nil {
			fn(status)
		}
		select {
		case <-beat.C:
		case <-loop.done:
			return
		}
	}
}

// awaitAgent waits until the agent is up, or agentGrace is over, and returns
// the status then; empty if the loop has ended.
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

// stopping reports that processes are stopping, and asks for more time as long
// as the loop answers. It ends with the loop.
func (n *sdNotifier) stopping(loop *supervisor) {
	if n.absent {
		return
	}
	n.send("STOPPING=1\nSTATUS=" + statusStops)
	more := "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(stopExtension.Microseconds(), 10)
	n.beat(loop, stopBeat, func(string) { n.send(more) })
}

// status asks the loop for the status; the error says that it does not answer.
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
