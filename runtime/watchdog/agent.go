package watchdog

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// AgentID is the agent as an instance of its watchdog. Its job name is
// reserved: declarations over the API cannot change it.
var AgentID = spec.InstanceID{Job: "meshrun", Process: "agent"}

// agentTimeout is how long the agent may be silent before it counts as hung and
// is killed and restarted. The new agent resumes the node's session, so it must
// be up before Consul expires that, and before other nodes wait long for this
// node's decisions. A wrong guess costs only the restart of the agent.
const agentTimeout = 8 * time.Second

// agentLaunch is how the watchdog runs the agent: always, and without giving
// up.
func agentLaunch(argv, environ []string, dir, socket string) spec.Launch {
	// Its environment is the watchdog's, which may differ after the next start
	// of the watchdog: that is no reason to restart the agent.
	sum := sha256.Sum256([]byte(strings.Join(argv, "\x00")))
	return spec.Launch{
		ID: AgentID, Version: 1, Hash: hex.EncodeToString(sum[:]), Critical: true,
		Argv: argv, Env: agentEnv(environ, socket), Dir: dir,
		Restart: spec.Restart{
			Policy: spec.RestartAlways, MaxDelay: spec.Duration(5 * time.Second), Attempts: 5,
			Window: spec.Duration(time.Minute), Exhausted: spec.ExhaustedRetry, Stable: spec.Duration(10 * time.Second),
		},
		Stop:     spec.Stop{Signal: "SIGTERM", Timeout: spec.Duration(10 * time.Second)},
		Ready:    &spec.Ready{Notify: true, Timeout: spec.Duration(time.Minute)},
		Watchdog: &spec.Watchdog{Timeout: spec.Duration(agentTimeout)},
		Logs:     spec.Logs{MaxSize: 10 << 20, Keep: 3},
	}
}

// agentEnv is the environment without the variables that are meant for the
// watchdog only.
func agentEnv(environ []string, socket string) []string {
	var env []string
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
			envInstance, envGeneration, envWatchdog, envUnrecorded, envLockFD, envLease, envSocket, envReexec:
			continue
		}
		env = append(env, v)
	}
	return append(env, envSocket+"="+socket)
}

// agentDir is the agent's working directory: that of the watchdog, so that
// relative paths in the command keep their meaning.
func agentDir() string {
	dir, err := os.Getwd()
	if err != nil {
		return "/"
	}
	return dir
}
