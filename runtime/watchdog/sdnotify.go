package watchdog

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
)

// sdNotifier tells the watchdog's own parent, systemd, how it is.
type sdNotifier struct {
	Notifier
	log hclog.Logger
}

// newSDNotifier reads the environment. One that was made for an instance of
// meshrun (the agent that started this watchdog) is not for the watchdog.
func newSDNotifier(getenv func(string) string, log hclog.Logger) *sdNotifier {
	n := &sdNotifier{log: log.Named("systemd")}
	if getenv(envInstance) == "" {
		n.Notifier = NewNotifier(getenv)
	}
	return n
}

// send tells one thing, such as "READY=1".
func (n *sdNotifier) send(state string) {
	if err := n.Send(state); err != nil {
		n.log.Warn("cannot notify systemd", "state", state, "error", err)
	}
}

// report says READY=1 once the agent is ready, and from then on that all is
// well, as long as the loop answers and the agent does its own duty. It ends
// with the loop.
func (n *sdNotifier) report(loop *supervisor, r *ring) {
	if n.socket == "" {
		return
	}
	for {
		_, more := r.wait()
		if n.healthy(loop) {
			break
		}
		select {
		case <-more:
		case <-loop.done:
			return
		}
	}
	n.send("READY=1\nSTATUS=Keeping processes alive")
	if n.Timeout == 0 {
		return
	}
	beat := time.NewTicker(n.Timeout / 2)
	defer beat.Stop()
	for {
		if n.healthy(loop) {
			n.send("WATCHDOG=1")
		}
		select {
		case <-beat.C:
		case <-loop.done:
			return
		}
	}
}

// healthy asks the loop whether the agent, if there is one, is up.
func (n *sdNotifier) healthy(loop *supervisor) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	well := false
	err := loop.do(ctx, func() {
		agent := loop.instances[AgentID]
		well = agent == nil || agent.phase == running
	})
	return err == nil && well
}
