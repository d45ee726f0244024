package membership

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/runtime/state"
)

// remember makes an agent that comes back find the session.
func (m *Member) remember() {
	place, err := placeOf(m.cfg.Dir)
	var text []byte
	if err == nil {
		text, err = json.Marshal(remembered{Session: m.id, Boot: m.cfg.BootID, Place: place})
	}
	if err == nil {
		err = writeFile(m.path("session"), string(text))
	}
	if err != nil {
		m.cfg.Logger.Warn("the session is not remembered: after a restart of the agent the node's shards move", "error", err)
	}
}

// remembered is what the data directory keeps of a session.
type remembered struct {
	Session string `json:"session"`
	// Boot is the boot in which it was made: a copy of the data directory on
	// another machine must never go on with it, and after a reboot nothing
	// runs that it would have to protect.
	Boot string `json:"boot"`
	// Place is where the data directory lay: a copy of it on the same machine
	// must not go on with the session either. Agents before this one did not
	// tell.
	Place string `json:"place,omitempty"`
}

// placeOf names a directory by what no copy of it has too.
func placeOf(dir string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", fmt.Errorf("look at data directory: %w", err)
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}

// recall returns the session that this node's last agent had, so that an
// agent's restart moves nothing; "" if there is none.
func (m *Member) recall(ctx context.Context) string {
	if m.cfg.Fence == 0 {
		// The data directory's lock makes this the only agent of the store.
		entry, err := m.cfg.Store.Get(ctx, state.NodeKey(m.cfg.Node.Name))
		if err != nil || entry.Session == "" {
			return ""
		}
		return entry.Session
	}
	text, err := os.ReadFile(m.path("session"))
	if err != nil {
		return ""
	}
	var r remembered
	place, err := placeOf(m.cfg.Dir)
	switch {
	case json.Unmarshal(text, &r) != nil || r.Boot != m.cfg.BootID:
		return ""
	case r.Place == "" && r.Session != "":
		m.id = r.Session
		m.remember()
	case err != nil || r.Place != place:
		m.cfg.Logger.Warn("the data directory is a copy, or was moved to another file system: the session that it remembers is not this agent's", "session", r.Session)
		return ""
	}
	return r.Session
}
