package follow

import (
	"slices"

	"github.com/synergymesh/meshrun/runtime/state"
)

// View is a copy of what is under a prefix, by name (the key without the
// prefix). Values are decoded when they are first asked for. It never goes
// back behind what its owner wrote himself and told it through Put.
type View[T any] struct {
	prefix string
	items  map[string]*item[T]
	// gone are names that the owner deleted, with the index of that: an update
	// from before it still shows them.
	gone map[string]uint64
}

type item[T any] struct {
	raw     []byte
	value   *T
	err     error
	index   uint64
	decoded bool
}

// NewView returns an empty view of a prefix.
func NewView[T any](prefix string) *View[T] {
	return &View[T]{prefix: prefix, items: map[string]*item[T]{}, gone: map[string]uint64{}}
}

// Apply takes an update over and returns the names that it changed.
func (v *View[T]) Apply(u Update) []string {
	var names []string
	if u.Restored {
		names = v.Names()
		clear(v.items)
		clear(v.gone)
	}
	for _, e := range u.Changed {
		name := Name(v.prefix, e.Key)
		if old := v.items[name]; (old != nil && old.index >= e.ModifyIndex) || v.gone[name] >= e.ModifyIndex {
			continue
		}
		v.items[name] = &item[T]{raw: e.Value, index: e.ModifyIndex}
		names = append(names, name)
	}
	for _, key := range u.Removed {
		name := Name(v.prefix, key)
		if old := v.items[name]; old != nil && old.index <= u.Index {
			delete(v.items, name)
			names = append(names, name)
		}
	}
	for name, at := range v.gone {
		if at <= u.Index {
			delete(v.gone, name)
		}
	}
	if u.Restored { // what was there before and after is in it twice
		slices.Sort(names)
		names = slices.Compact(names)
	}
	return names
}

// Put records what the owner itself wrote at an index; nil that it deleted.
func (v *View[T]) Put(name string, value *T, index uint64) {
	if value == nil {
		delete(v.items, name)
		v.gone[name] = index
		return
	}
	v.items[name] = &item[T]{value: value, index: index, decoded: true}
}

// Keep is Put of a value as it was written, which Read then decodes.
func (v *View[T]) Keep(name string, value []byte, index uint64) {
	v.items[name] = &item[T]{raw: value, index: index}
}

// Get returns a value and its ModifyIndex; nil and 0 if there is none. It
// returns an error if the value cannot be read. The value must not be changed.
func (v *View[T]) Get(name string) (*T, uint64, error) {
	it := v.items[name]
	if it == nil {
		return nil, 0, nil
	}
	if !it.decoded {
		it.value, it.err = v.decode(name, it)
		it.raw, it.decoded = nil, true
	}
	return it.value, it.index, it.err
}

// Read is Get for what is seldom asked for: the value is kept as it is stored,
// which takes far less memory, and decoded each time.
func (v *View[T]) Read(name string) (*T, uint64, error) {
	it := v.items[name]
	if it == nil || it.decoded {
		return v.Get(name)
	}
	value, err := v.decode(name, it)
	return value, it.index, err
}

func (v *View[T]) decode(name string, it *item[T]) (*T, error) {
	value, err := state.Decode[T](state.Entry{Key: v.prefix + name, Value: it.raw})
	if err != nil {
		return nil, err
	}
	return &value, nil
}

// Index returns the ModifyIndex of a value, readable or not; 0 if there is none.
func (v *View[T]) Index(name string) uint64 {
	if it := v.items[name]; it != nil {
		return it.index
	}
	return 0
}

// Has reports whether there is a value of that name.
func (v *View[T]) Has(name string) bool { return v.items[name] != nil }

// Names returns the names of all values, sorted.
func (v *View[T]) Names() []string {
	names := make([]string, 0, len(v.items))
	for name := range v.items {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
