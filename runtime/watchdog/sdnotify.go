package watchdog

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// sdNotifier tells the watchdog's own parent, systemd, how it is
// (sd_notify(3)). Without NOTIFY_SOCKET it does nothing.
type sdNotifier struct {
	log    hclog.Logger
	socket string
	every  time.Duration // between keep-alives; 0 for none
}

// newSDNotifier reads the environment. One that was made for an instance of
// meshrun (the agent that started this watchdog) is not for the watchdog.
func newSDNotifier(getenv func(string) string, log hclog.Logger) *sdNotifier {
	n := &sdNotifier{log: log.Named("systemd")}
	if getenv(envInstance) != "" {
		return n
	}
	n.socket = getenv("NOTIFY_SOCKET")
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if err == nil && usec > 0 {
		n.every = time.Duration(usec) * time.Microsecond / 2
	}
	return n
}

// send tells one thing, such as "READY=1".
func (n *sdNotifier) send(state string) {
	if n.socket == "" {
		return
	}
	name := n.socket
	if strings.HasPrefix(name, "@") { // the abstract namespace
		name = "\x00" + name[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil {
		defer conn.Close()
		if err = conn.SetWriteDeadline(time.Now().Add(time.Second)); err == nil {
			_, err = conn.Write([]byte(state))
		}
	}
	if err != nil {
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
	if n.every <= 0 {
		return
	}
	beat := time.NewTicker(n.every)
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
