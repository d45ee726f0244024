package spec

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// JobVersion is one version of what is wanted of a job: the value of
// jobs/<job>, and of history/<job>/<version>.
type JobVersion struct {
	Job     Job    `json:"job"`
	Version uint64 `json:"version"`
	// Checksum is the SHA-256 of the job's JSON, in hex.
	Checksum string    `json:"checksum"`
	Who      string    `json:"who"`
	When     time.Time `json:"when"`
	// Why says what made this version: "apply", "scale", "stop", "restart".
	Why string `json:"why"`
	// Reverts is the failed version that the orchestrator made this one to replace;
	// 0 if it did not.
	Reverts uint64 `json:"reverts,omitempty"`
	// Source is the file that the job came from; empty if from none.
	Source string `json:"source,omitempty"`
	// Orders are an operator's wishes beside the file, by "process" or
	// "process/shard"; the more exact one wins.
	Orders map[string]Order `json:"orders,omitempty"`
}

// IsRevert reports whether the orchestrator made the version to replace a failed
// one. Versions of before Reverts tell it by their Why.
func (v *JobVersion) IsRevert() bool { return v.Reverts != 0 || v.Why == "revert" }

// Order is an operator's wish for a process or one shard of it.
type Order struct {
	// Stopped keeps it down until it is restarted or applied again.
	Stopped bool `json:"stopped,omitempty"`
	// Epoch counts the restarts that were asked for.
	Epoch uint64 `json:"epoch,omitempty"`
	// Paused keeps every running shard at the definition that it has, through
	// whatever is applied, until the rollout is resumed. PausedBy and PausedAt tell
	// who ordered it, and when.
	Paused   bool      `json:"paused,omitempty"`
	PausedBy string    `json:"paused_by,omitempty"`
	PausedAt time.Time `json:"paused_at,omitzero"`
	// Promoted ends the trial of the process's canaries.
	Promoted bool `json:"promoted,omitempty"`
	// Runs counts the runs of a scheduled process that were asked for by hand.
	Runs uint64 `json:"runs,omitempty"`
}

// Op is what an operator orders of instances.
type Op string

// The orders.
const (
	// OpRestart restarts instances once, and starts those that were stopped.
	OpRestart Op = "restart"
	// OpStop keeps instances down until they are started, restarted or
	// applied again.
	OpStop Op = "stop"
	// OpStart ends an OpStop; what runs is not touched.
	OpStart Op = "start"
	// OpScale sets a process's number of shards.
	OpScale Op = "scale"
	// OpPause holds a rollout where it is, OpResume lets it go on.
	OpPause  Op = "pause"
	OpResume Op = "resume"
	// OpPromote ends the trial of canaries: the others follow.
	OpPromote Op = "promote"
	// OpRun starts a run of a scheduled process now.
	OpRun Op = "run"
)

// Order returns what operators ordered for one shard: Stopped if the shard
// or its process is, and the sum of both epochs, so that either one's
// increase restarts the shard.
func (v *JobVersion) Order(process string, shard int) Order {
	p := v.Orders[process]
	s := v.Orders[process+"/"+strconv.Itoa(shard)]
	return Order{
		Stopped: p.Stopped || s.Stopped, Epoch: p.Epoch + s.Epoch,
		Paused: p.Paused, Promoted: p.Promoted, Runs: p.Runs,
	}
}

// PausedText says "paused by WHO since WHEN", as far as that is known.
func (o Order) PausedText() string {
	text := "paused"
	if o.PausedBy != "" {
		text += " by " + o.PausedBy
	}
	if !o.PausedAt.IsZero() {
		text += " since " + o.PausedAt.UTC().Format("2006-01-02 15:04 MST")
	}
	return text
}

// Steps reports whether changes of a process go in steps: its update block says
// so, or an operator's pause holds them.
func (v *JobVersion) Steps(p *Process) bool {
	return p.Update != nil || (p.Schedule == nil && v.Orders[p.Name].Paused)
}

// InSteps reports whether changes of any process of the job go in steps, so that
// its rollout is remembered.
func (v *JobVersion) InSteps() bool {
	return slices.ContainsFunc(v.Job.Processes, func(p Process) bool { return v.Steps(&p) })
}

// Node is a machine that runs instances: the value of nodes/<node>.
type Node struct {
	Name     string            `json:"name"`
	Address  string            `json:"address,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Draining bool              `json:"draining,omitempty"`
	// Weight is the node's share of the shards relative to the others'; 0
	// means 1.
	Weight float64 `json:"weight,omitempty"`
	// Capacity is the most instances that the node is given, CPU and Memory the
	// most cores and bytes that their resources may come to; 0 means no bound.
	Capacity int     `json:"capacity,omitempty"`
	CPU      float64 `json:"cpu,omitempty"`
	Memory   Size    `json:"memory,omitempty"`
	// Version is meshrun's own on that node.
	Version string `json:"version,omitempty"`
	// Since is when the session was made that holds the record.
	Since time.Time `json:"since,omitzero"`
}

// NodeState is what the cluster was last told of a node.
type NodeState string

// The states of a node in the roster.
const (
	NodeHere     NodeState = "here"
	NodeDraining NodeState = "draining"
	NodeDrained  NodeState = "drained" // draining, and nothing runs on it any more
)

// Roster lists the nodes whose coming was told, and whose going was not yet:
// the value of roster. With it each is told once, whoever is the primary.
type Roster struct {
	Nodes map[string]NodeState `json:"nodes"`
	// Since is each node's Since at that time: a node with another one was gone
	// in between.
	Since map[string]time.Time `json:"since,omitempty"`
}

// ShardSet is a sorted set of shard numbers; its text is ranges: "0-7,9".
type ShardSet []int

// NewShardSet returns the set of the given shards.
func NewShardSet(shards ...int) ShardSet {
	s := append(ShardSet(nil), shards...)
	sort.Ints(s)
	out := s[:0]
	for i, n := range s {
		if i == 0 || n != s[i-1] {
			out = append(out, n)
		}
	}
	return out
}

// Contains reports whether the shard is in the set.
func (s ShardSet) Contains(shard int) bool {
	i := sort.SearchInts(s, shard)
	return i < len(s) && s[i] == shard
}

// String returns the set as ranges: "0-7,9".
func (s ShardSet) String() string {
	var b strings.Builder
	for i := 0; i < len(s); {
		j := i
		for j+1 < len(s) && s[j+1] == s[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(s[i]))
		if j > i {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(s[j]))
		}
		i = j + 1
	}
	return b.String()
}

// MarshalText writes the set as ranges.
func (s ShardSet) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads ranges such as "0-7,9".
func (s *ShardSet) UnmarshalText(b []byte) error {
	var out []int
	for part := range strings.SplitSeq(string(b), ",") {
		if part == "" {
			continue
		}
		lo, hi, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(lo)
		if err != nil {
			return fmt.Errorf("parse shards %q: %w", b, err)
		}
		last := first
		if isRange {
			if last, err = strconv.Atoi(hi); err != nil {
				return fmt.Errorf("parse shards %q: %w", b, err)
			}
		}
		if first < 0 || last < first || last-first > MaxShards {
			return fmt.Errorf("parse shards %q: %q is not a range of shards", b, part)
		}
		for n := first; n <= last; n++ {
			out = append(out, n)
		}
	}
	*s = NewShardSet(out...)
	return nil
}

// MaxShards is the largest number of shards that a process may have.
const MaxShards = 65536

// Placement says where a job's shards belong: the value of placements/<job>.
type Placement struct {
	Job     string `json:"job"`
	Version uint64 `json:"version"` // of the job
	// Processes maps process → node → shards.
	Processes map[string]map[string]ShardSet `json:"processes"`
	// Resources are what each shard of a process takes of its node, of those
	// processes that say so.
	Resources map[string]Resources `json:"resources,omitempty"`
	// Unplaced lists the shards that no node can take, and why.
	Unplaced []Unplaced `json:"unplaced,omitempty"`
	// Spent lists the shards that are not placed on some nodes any more, as they
	// have used up their restarts there; sorted by process and epoch.
	Spent []Spent `json:"spent,omitempty"`
}

// Unplaced is a shard that no node can take.
type Unplaced struct {
	Process string `json:"process"`
	Shard   int    `json:"shard"`
	Reason  string `json:"reason"`
}

// Spent remembers on which nodes shards of a process have used up their restart
// attempts, where the process is to be rescheduled then. It holds for one
// definition of the process and one epoch of the shards' orders: what is applied
// otherwise, or ordered to be restarted, may be tried on every node again.
type Spent struct {
	Process string `json:"process"`
	// Hash is the ReplaceHash of the definition, Epoch that of the shards' orders.
	Hash  string `json:"hash"`
	Epoch uint64 `json:"epoch,omitempty"`
	// Nodes has the shards that are spent on each node.
	Nodes map[string]ShardSet `json:"nodes"`
}

// SpentOn returns the nodes, sorted, on which a shard has used up its restarts.
func (p *Placement) SpentOn(process string, shard int) []string {
	var nodes []string
	for _, s := range p.Spent {
		if s.Process != process {
			continue
		}
		for node, shards := range s.Nodes {
			if shards.Contains(shard) {
				nodes = append(nodes, node)
			}
		}
	}
	sort.Strings(nodes)
	return nodes
}

// Place returns the node that a shard belongs on, "" if it has none.
func (p *Placement) Place(process string, shard int) string {
	for node, shards := range p.Processes[process] {
		if shards.Contains(shard) {
			return node
		}
	}
	return ""
}

// Assignment is what a node shall run of a job now: the value of
// assignments/<node>/<job>. It holds all that the node needs, so that the
// node can act on it alone.
type Assignment struct {
	Job       string            `json:"job"`
	Node      string            `json:"node"`
	Processes []AssignedProcess `json:"processes"`
}

// AssignedProcess is a process at one version, with the shards of it that a
// node shall run. During a rollout a process appears once per version; a
// shard appears at most once.
type AssignedProcess struct {
	Process Process  `json:"process"`
	Version uint64   `json:"version"`
	Shards  ShardSet `json:"shards"`
	// Held maps shards that are not to be started (or restarted) yet to the
	// reason; one that runs is left as it is.
	Held map[int]string `json:"held,omitempty"`
	// Epochs are the orders' epochs of the shards, where not 0.
	Epochs map[int]uint64 `json:"epochs,omitempty"`
	// Expire holds what each shard's launch shall say of its present generation.
	Expire map[int]Expire `json:"expire,omitempty"`
	// After remembers, of each dependency whose restart is followed by one of the
	// process, the generations with which the shards here live. Due are the shards
	// that are still to be restarted for a change of it, with their generation.
	After map[string]string `json:"after,omitempty"`
	Due   map[int]uint64    `json:"due,omitempty"`
	// Since is from when the ticks of the process's schedule count.
	Since time.Time `json:"since,omitzero"`
}

// AssignedShards is an AssignedProcess as events tell it: the process by name
// and version alone, because its values may be secret; history has them.
type AssignedShards struct {
	Process string   `json:"process"`
	Version uint64   `json:"version"`
	Shards  ShardSet `json:"shards"`
	// Held are the shards that are not to be started yet.
	Held ShardSet `json:"held,omitempty"`
	// Epochs maps each epoch that is not 0 to its shards.
	Epochs map[uint64]ShardSet `json:"epochs,omitempty"`
}

// Assigned returns the assignment as events tell it.
func (a *Assignment) Assigned() []AssignedShards {
	var out []AssignedShards
	for _, p := range a.Processes {
		s := AssignedShards{Process: p.Process.Name, Version: p.Version, Shards: p.Shards}
		for shard := range p.Held {
			s.Held = append(s.Held, shard)
		}
		sort.Ints(s.Held)
		for shard, epoch := range p.Epochs {
			if s.Epochs == nil {
				s.Epochs = map[uint64]ShardSet{}
			}
			s.Epochs[epoch] = append(s.Epochs[epoch], shard)
		}
		for _, shards := range s.Epochs {
			sort.Ints(shards)
		}
		out = append(out, s)
	}
	return out
}

// Observed is what a node saw of a job's instances: the value of
// observed/<node>/<job>.
type Observed struct {
	Job       string     `json:"job"`
	Node      string     `json:"node"`
	Instances []Instance `json:"instances"`
}

// Runtime holds what run-time references in templates stand for.
type Runtime struct {
	ShardIndex int
	ShardCount int
	NodeName   string
	NodeLabels map[string]string
	Ports      map[string]int
}
