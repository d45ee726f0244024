package engine

import "github.com/synergymesh/meshrun/spec"

// builder makes the launches of all assigned shards, each once per change of
// what it is made of. The engine's loop owns it.
type builder struct {
	host  *Host
	ports *portBook
	locks *locks
	files *files
	// fenced is set if exclusive shards live under the lease of their session.
	fenced bool
	made   map[spec.InstanceID]*made
	texts  spec.Texts // of the launches made in one call of wanted
	// exclusive lists the shards whose locks shall be held, as of wanted.
	exclusive []spec.InstanceID
	// faults counts the shards that cannot be launched, as of wanted.
	faults int
}

// made is a launch, or the fault of one, with what it was made of.
type made struct {
	process *process
	hold    hold
	digest  string
	result  Wanted
	// refused is why the watchdog did not take result; told is the fault that
	// was emitted.
	refused, told string
	used          bool
}

// wanted returns every assigned shard with its launch, or why there is none.
func (b *builder) wanted(jobs map[string]*assigned, running []spec.Instance) []Wanted {
	var out []Wanted
	b.exclusive, b.faults = b.exclusive[:0], 0
	b.ports.reserve(jobs)
	b.files.begin()
	defer b.files.end()
	b.texts = spec.Texts{}
	defer func() { b.texts = nil }()
	for name, job := range jobs {
		for _, p := range job.processes {
			for _, shard := range p.Shards {
				id := spec.InstanceID{Job: name, Process: p.Process.Name, Shard: shard}
				w := b.shard(p, id)
				w.Version = p.Version
				out = append(out, w)
			}
		}
		if job.broken && !job.known {
			out = append(out, protect(name, running)...)
		}
	}
	b.forget(running)
	return out
}

// protected leaves an instance as it is.
func protected(id spec.InstanceID) Wanted {
	return Wanted{ID: id, Why: "the job's assignment is lost or cannot be read: apply the job again", Failed: true}
}

// protect keeps what runs of a job whose assignment was never readable.
func protect(job string, running []spec.Instance) (out []Wanted) {
	for _, inst := range running {
		if inst.ID.Job == job {
			out = append(out, protected(inst.ID))
		}
	}
	return out
}

// forget drops what belongs to shards that are neither assigned nor running.
func (b *builder) forget(running []spec.Instance) {
	runs := make(map[spec.InstanceID]bool, len(running))
	for i := range running {
		runs[running[i].ID] = true
	}
	for id, m := range b.made {
		if m.used {
			m.used = false
			continue
		}
		delete(b.made, id)
	}
	for id := range b.ports.byID {
		if b.made[id] == nil && !runs[id] {
			b.ports.release(id)
		}
	}
}

// shard returns one shard with its launch, or why there is none.
func (b *builder) shard(p *process, id spec.InstanceID) Wanted {
	m := b.made[id]
	if m == nil {
		m = &made{}
		b.made[id] = m
	}
	m.used = true
	waits, held := p.Held[id.Shard]
	if p.Process.Exclusive && !held {
		b.exclusive = append(b.exclusive, id)
	}
	if why := b.locks.lostWhy(id); why != "" {
		return b.keep(m, Wanted{ID: id, Why: why, Stop: true})
	}
	if held {
		return b.keep(m, Wanted{ID: id, Why: waits})
	}
	var lock hold
	if p.Process.Exclusive {
		var why string
		if lock, why = b.locks.token(id); why != "" {
			return b.keep(m, Wanted{ID: id, Why: why})
		}
	}
	ports, err := b.ports.assign(id, p.Process.Ports)
	if err != nil {
		return b.keep(m, Wanted{ID: id, Why: err.Error(), Failed: true})
	}
	paths, err := ReloadFiles(&p.AssignedProcess, id, ports, b.host)
	if err != nil {
		return b.keep(m, Wanted{ID: id, Why: err.Error(), Failed: true})
	}
	digest := b.files.digest(paths)
	if m.process == p && m.hold == lock && m.digest == digest && m.result.Launch != nil {
		if m.refused != "" {
			b.faults++
			return Wanted{ID: id, Why: m.refused, Failed: true}
		}
		return m.result
	}
	given := Given{Hash: p.hash, Ports: ports, Token: lock.token, Digest: digest}
	if b.fenced {
		given.Lease = lock.session
	}
	launch, err := Launch(&p.AssignedProcess, id, given, b.host)
	if err != nil {
		return b.keep(m, Wanted{ID: id, Why: err.Error(), Failed: true})
	}
	b.texts.Share(&launch)
	m.process, m.hold, m.digest, m.refused, m.told = p, lock, digest, "", ""
	m.result = Wanted{ID: id, Launch: &launch, Digest: Digest(&launch)}
	return m.result
}

// keep remembers that there is no launch.
func (b *builder) keep(m *made, w Wanted) Wanted {
	m.process, m.result = nil, w
	if w.Failed {
		b.faults++
	} else {
		m.told = ""
	}
	return w
}

// refuse notes that the watchdog does not take a shard's launch.
func (b *builder) refuse(id spec.InstanceID, err error) {
	if m := b.made[id]; m != nil {
		m.refused = err.Error()
	}
}

// pardon makes all refused launches be tried again.
func (b *builder) pardon() {
	for _, m := range b.made {
		m.refused = ""
	}
}

// isNewFault reports, once, that a shard cannot be launched for a new reason.
func (b *builder) isNewFault(w *Wanted) bool {
	m := b.made[w.ID]
	if !w.Failed || m == nil || m.told == w.Why {
		return false
	}
	m.told = w.Why
	return true
}
