package engine

import (
	"fmt"
	"hash/fnv"
	"net"
	"strconv"

	"github.com/synergymesh/meshrun/spec"
)

// FirstPort and LastPort bound the ports that the node chooses from: below the
// range that Linux takes for outgoing connections.
const (
	FirstPort = 20000
	LastPort  = 32767
)

// portBook remembers which instance has which port. The engine's loop owns it.
type portBook struct {
	byID  map[spec.InstanceID]map[string]int
	owner map[int]spec.InstanceID
	// static are the ports that job files fix.
	static map[int]bool
	// free reports whether nobody on the node listens on the port.
	free func(port int) bool
}

func newPortBook(free func(int) bool) *portBook {
	return &portBook{byID: map[spec.InstanceID]map[string]int{}, owner: map[int]spec.InstanceID{}, static: map[int]bool{}, free: free}
}

// reserve keeps the static ports of all assigned processes out of the choice.
func (b *portBook) reserve(jobs map[string]*assigned) {
	clear(b.static)
	for _, job := range jobs {
		for _, p := range job.processes {
			for _, port := range p.Process.Ports {
				if port.Static != 0 {
					b.static[port.Static] = true
				}
			}
		}
	}
}

// adopt records the ports that instances have had, unless the book knows better:
// so they keep them across restarts of the agent.
func (b *portBook) adopt(instances []spec.Instance) {
	for i := range instances {
		id := instances[i].ID
		if _, ok := b.byID[id]; ok {
			continue
		}
		for name, port := range instances[i].Ports {
			b.set(id, name, port)
		}
	}
}

func (b *portBook) set(id spec.InstanceID, name string, port int) {
	if b.byID[id] == nil {
		b.byID[id] = map[string]int{}
	}
	b.byID[id][name] = port
	if _, taken := b.owner[port]; !taken {
		b.owner[port] = id
	}
}

// release forgets the ports of an instance that is gone.
func (b *portBook) release(id spec.InstanceID) {
	for _, port := range b.byID[id] {
		if b.owner[port] == id {
			delete(b.owner, port)
		}
	}
	delete(b.byID, id)
}

// assign returns the ports of one instance: static ones as they are, the
// others as they were, or else the first free one from a place that only the
// instance and the name decide.
func (b *portBook) assign(id spec.InstanceID, wanted []spec.Port) (map[string]int, error) {
	if len(wanted) == 0 {
		b.release(id)
		return nil, nil
	}
	old := b.byID[id]
	out := make(map[string]int, len(wanted))
	for _, p := range wanted {
		port, had := old[p.Name]
		switch {
		case p.Static != 0:
			port = p.Static
		case !had || port < FirstPort || port > LastPort || b.owner[port] != id:
			var err error
			if port, err = b.choose(id, p.Name); err != nil {
				return nil, err
			}
		}
		out[p.Name] = port
		if _, taken := b.owner[port]; !taken {
			b.owner[port] = id
		}
	}
	for name, port := range old {
		if out[name] != port && b.owner[port] == id && !holds(out, port) {
			delete(b.owner, port)
		}
	}
	b.byID[id] = out
	return out, nil
}

func holds(ports map[string]int, port int) bool {
	for _, p := range ports {
		if p == port {
			return true
		}
	}
	return false
}

func (b *portBook) choose(id spec.InstanceID, name string) (int, error) {
	const span = LastPort - FirstPort + 1
	h := fnv.New32a()
	h.Write([]byte(id.String() + "/" + name))
	start := int(h.Sum32() % span)
	for i := range span {
		port := FirstPort + (start+i)%span
		if _, taken := b.owner[port]; !taken && !b.static[port] && b.free(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("choose port %q: all ports from %d to %d are taken on this node; free some, or give it a static one", name, FirstPort, LastPort)
}

// bindable reports whether the port can be listened on, by TCP and by UDP.
func bindable(port int) bool {
	address := ":" + strconv.Itoa(port)
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	l.Close()
	p, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	p.Close()
	return true
}
