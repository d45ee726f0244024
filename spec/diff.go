package spec

import (
	"reflect"
	"slices"
	"strings"
)

// Diff returns what differs between two versions of a job, both normalized:
// first the job's own fields, then process by process, fields in the order of
// their declaration. A nil job has no fields and no processes. It is empty if
// and only if the jobs are equal.
//
// Changes of a process that is in both say what they do to a running instance:
// one has EffectReplace if and only if ReplaceHash differs. A process that
// comes or goes as a whole has no effect on a running instance of itself; of
// its fields only shards and those that are not the default are listed.
func Diff(old, new *Job) []Change {
	var changes []Change
	if old == nil {
		old = &Job{}
	}
	if new == nil {
		new = &Job{}
	}
	changes = append(changes, diffLeaves("", labelLeaves(old), labelLeaves(new))...)
	before, after := processesByName(old), processesByName(new)
	for _, name := range unionOfNames(old, new) {
		o, n := before[name], after[name]
		switch {
		case o == nil:
			changes = append(changes, wholeProcess(n, func(c *Change, l leaf) { c.New, c.NewSet = l.shown, true })...)
		case n == nil:
			changes = append(changes, wholeProcess(o, func(c *Change, l leaf) { c.Old, c.OldSet = l.shown, true })...)
		default:
			changes = append(changes, DiffProcess(o, n)...)
		}
	}
	return changes
}

// DiffProcess returns what differs between two versions of one process, both
// normalized.
func DiffProcess(old, new *Process) []Change {
	if reflect.DeepEqual(old, new) {
		return nil
	}
	return diffLeaves(new.Name, processLeaves(old), processLeaves(new))
}

// MaxEffect returns the greatest effect among changes.
func MaxEffect(changes []Change) Effect {
	effect := EffectNone
	for _, c := range changes {
		effect = maxEffect(effect, c.Effect)
	}
	return effect
}

func processesByName(j *Job) map[string]*Process {
	byName := make(map[string]*Process, len(j.Processes))
	for i := range j.Processes {
		byName[j.Processes[i].Name] = &j.Processes[i]
	}
	return byName
}

func unionOfNames(old, new *Job) []string {
	names := make([]string, 0, len(old.Processes)+len(new.Processes))
	for _, p := range old.Processes {
		names = append(names, p.Name)
	}
	for _, p := range new.Processes {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// usualTexts are the leaves of a process of which nothing is said, by path.
var usualTexts = func() map[string]string {
	base := DefaultProcess("")
	texts := map[string]string{}
	for _, l := range processLeaves(&base) {
		texts[l.path] = l.text
	}
	return texts
}()

// wholeProcess lists what is said about a process that comes or goes.
func wholeProcess(p *Process, put func(*Change, leaf)) []Change {
	var changes []Change
	leaves := processLeaves(p)
	slices.SortFunc(leaves, func(a, b leaf) int { return strings.Compare(a.pos, b.pos) })
	for i, l := range leaves {
		text, isUsual := usualTexts[l.path]
		if !l.set || (isUsual && text == l.text && l.path != "shards") || hasFields(leaves, i) {
			continue
		}
		c := Change{Process: p.Name, Path: l.path}
		put(&c, l)
		changes = append(changes, c)
	}
	return changes
}

// hasFields reports whether the leaf at i only says that a block is there, and
// fields of the block that follow say so already.
func hasFields(sorted []leaf, i int) bool {
	return i+1 < len(sorted) && sorted[i+1].set && strings.HasPrefix(sorted[i+1].path, sorted[i].path+".")
}

// diffLeaves compares two sets of leaves.
func diffLeaves(process string, old, new []leaf) []Change {
	differing := pair(old, new)
	slices.SortFunc(differing, func(a, b leafPair) int { return strings.Compare(a.pos(), b.pos()) })
	var changes []Change
	for i, d := range differing {
		// That a block came or went is told by its fields, if there are any.
		if d.isBlock() && i+1 < len(differing) && differing[i+1].says(d) {
			differing[i+1].effect = maxEffect(differing[i+1].effect, d.effect)
			continue
		}
		changes = append(changes, d.change(process))
	}
	return changes
}

// leafPair is the same leaf before and after.
type leafPair struct {
	old, new leaf // not set if there is none
	effect   Effect
}

// pair returns the leaves that differ.
func pair(old, new []leaf) []leafPair {
	before := make(map[string]leaf, len(old))
	for _, l := range old {
		before[l.path] = l
	}
	var out []leafPair
	for _, n := range new {
		o := before[n.path]
		delete(before, n.path)
		if p, differs := compare(o, n); differs {
			out = append(out, p)
		}
	}
	for _, o := range old {
		if _, left := before[o.path]; left {
			if p, differs := compare(o, leaf{}); differs {
				out = append(out, p)
			}
		}
	}
	return out
}

func compare(o, n leaf) (leafPair, bool) {
	p := leafPair{old: o, new: n, effect: maxEffect(o.effect, n.effect)}
	if !o.set && !n.set {
		return p, false
	}
	if o.counts() == n.counts() {
		p.effect = EffectLive
	}
	return p, o.set != n.set || o.text != n.text || o.hidden != n.hidden
}

func (p leafPair) pos() string {
	if p.new.pos != "" {
		return p.new.pos
	}
	return p.old.pos
}

func (p leafPair) path() string {
	if p.new.path != "" {
		return p.new.path
	}
	return p.old.path
}

// isBlock reports whether the pair only tells that a block came or went.
func (p leafPair) isBlock() bool { return p.old.text == "{}" || p.new.text == "{}" }

// says reports whether p is a field of the block that came or went.
func (p leafPair) says(block leafPair) bool {
	return strings.HasPrefix(p.path(), block.path()+".") && (p.old.set == block.old.set || p.new.set == block.new.set)
}

func (p leafPair) change(process string) Change {
	c := Change{Process: process, Path: p.path(), Effect: p.effect}
	c.OldSet, c.NewSet = p.old.set, p.new.set
	if c.OldSet {
		c.Old = p.old.shown
	}
	if c.NewSet {
		c.New = p.new.shown
	}
	if p.old.hidden != p.new.hidden {
		c.hide()
	}
	return c
}

// hide covers both values of something that is sensitive on one side only.
func (c *Change) hide() {
	if c.OldSet {
		c.Old = sensitiveText
	}
	if c.NewSet {
		c.New = sensitiveText
	}
}
