package local

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

// findings is what an inspection of a file found.
type findings struct {
	records map[recordID]found
	meta    meta // of the state; its format is 0 if it wasn't found
	damage  error
	// revived: what had been deleted may be among the records, because it is
	// unknown which pages are free.
	revived bool
}

// found is a record that can be trusted.
type found struct {
	body  []byte
	index uint64 // the newer of two is the right one
}

// inspector walks the tree of a file and notes every fault on its way.
type inspector struct {
	file  pageFile
	top   boltMeta
	free  map[uint64]bool // nil if the free list is unreadable
	used  map[uint64]bool // reached from the root
	torn  bool            // a part of the tree is unreadable
	out   findings
	fault func(error)
}

// inspect reads all records of a file. It finds any damage that could make
// bbolt panic, and any record that isn't as it was written; out.damage says
// what the first was. Of a damaged file it returns all that can be saved.
func inspect(f pageFile) findings {
	in := &inspector{file: f, used: map[uint64]bool{}, out: findings{records: map[recordID]found{}}}
	in.fault = func(err error) {
		if in.out.damage == nil {
			in.out.damage = err
		}
	}
	metas := f.metas()
	switch len(metas) {
	case 0:
		in.fault(errors.New("both of its meta pages are unreadable"))
		in.file.pageSize = int64(os.Getpagesize())
		in.torn = true
		in.scan()
		return in.out
	case 1:
		in.fault(errors.New("one of its two meta pages is unreadable"))
	}
	in.top = metas[0]
	in.file.pageSize = in.top.pageSize
	if need := int64(in.top.pages) * in.top.pageSize; in.top.pages > uint64(f.size/in.top.pageSize) {
		in.fault(fmt.Errorf("it has %d bytes and should have at least %d", f.size, need))
	}
	in.readFreeList()
	in.walkRoot()
	in.checkCounts()
	if in.out.damage != nil {
		in.scan()
	}
	return in.out
}

func (in *inspector) readFreeList() {
	free, p, err := in.file.freeList(in.top)
	if err != nil {
		in.fault(err)
		return
	}
	in.free = free
	in.use(p)
}

// use notes that a page is in use, and reports whether it may be.
func (in *inspector) use(p *page) bool {
	ok := true
	for id := p.id; id <= p.id+p.extra; id++ {
		if id < 2 || id >= in.top.pages || in.used[id] || in.free[id] {
			in.fault(fmt.Errorf("page %d is used twice, or is free, or does not exist", id))
			ok = false
		}
		in.used[id] = true
	}
	return ok
}

// walkRoot walks the tree that holds the buckets.
func (in *inspector) walkRoot() {
	p, err := in.file.read(in.top.root)
	if err == nil && p.kind != kindLeafPage {
		err = fmt.Errorf("page %d is of kind %d and should be the root", p.id, p.kind)
	}
	if err != nil {
		in.tear(err)
		return
	}
	in.use(p)
	items, err := p.items()
	if err != nil {
		in.tear(err)
	}
	var last []byte
	for _, it := range items {
		root, inline, err := it.bucketRoot()
		switch {
		case err != nil:
			in.tear(err)
		case len(it.key) != 1 || !recordKind(it.key[0]).known():
			in.fault(fmt.Errorf("there is an unknown bucket %q", it.key))
		case inline != nil:
			in.leaf(inline, recordKind(it.key[0]), nil, nil)
		default:
			in.walk(root, recordKind(it.key[0]), nil, nil)
		}
		if last != nil && bytes.Compare(last, it.key) >= 0 {
			in.fault(errors.New("its buckets are out of order"))
		}
		last = it.key
	}
}

// tear notes a fault that hides a part of the tree.
func (in *inspector) tear(err error) {
	in.torn = true
	in.fault(err)
}

// walk visits the tree below a page, whose keys lie in [low, high).
func (in *inspector) walk(id uint64, kind recordKind, low, high []byte) {
	if in.used[id] {
		in.tear(fmt.Errorf("page %d is used twice", id))
		return
	}
	p, err := in.file.read(id)
	if err != nil {
		in.tear(err)
		return
	}
	if !in.use(p) {
		in.torn = true
	}
	if p.kind == kindLeafPage {
		in.leaf(p, kind, low, high)
		return
	}
	children, err := p.items()
	if err == nil && len(children) == 0 {
		err = fmt.Errorf("page %d is a branch without children", id)
	}
	if err != nil {
		in.tear(err)
	}
	for i, c := range children {
		next := high
		if i+1 < len(children) {
			next = children[i+1].key
		}
		if !within(c.key, low, high) || bytes.Equal(c.key, next) {
			in.tear(fmt.Errorf("the keys of page %d are out of order", id))
			continue
		}
		in.walk(c.child, kind, c.key, next)
	}
}

// leaf takes the records of a leaf.
func (in *inspector) leaf(p *page, kind recordKind, low, high []byte) {
	items, err := p.items()
	if err != nil {
		in.tear(err)
	}
	for i, it := range items {
		if !within(it.key, low, high) || (i > 0 && bytes.Compare(items[i-1].key, it.key) >= 0) {
			in.fault(fmt.Errorf("the keys of page %d are out of order", p.id))
		}
		got, ok := in.take(it)
		if it.bucket || !ok || got != kind {
			in.tear(fmt.Errorf("the record of %q is damaged", it.key))
		}
	}
}

// take keeps a record if it is as it was written, and newer than what is known
// of its key.
func (in *inspector) take(it item) (recordKind, bool) {
	kind, body, err := openRecord(string(it.key), it.value)
	if err != nil {
		return 0, false
	}
	r := found{body: body}
	id := recordID{kind, string(it.key)}
	switch kind {
	case kindEntry:
		e, err := decodeEntry(id.key, body)
		if err != nil {
			return kind, false
		}
		r.index = e.ModifyIndex
	case kindMeta:
		m, err := decodeMeta(body)
		if err != nil {
			return kind, false
		}
		r.index = m.index
		if m.format > in.out.meta.format || m.index > in.out.meta.index {
			in.out.meta = m
		}
	}
	if old, ok := in.out.records[id]; !ok || old.index < r.index {
		in.out.records[id] = r
	}
	return kind, true
}

// checkCounts compares what was found with what the last commit counted.
func (in *inspector) checkCounts() {
	m := in.out.meta
	if m.format == 0 {
		in.tear(errors.New("the record of its index is missing"))
	}
	if entries, sessions := in.out.count(); m.format <= Format && (entries != m.entries || sessions != m.sessions) {
		in.fault(fmt.Errorf("it holds %d of %d keys and %d of %d sessions", entries, m.entries, sessions, m.sessions))
	}
}

// scan looks for records in every page that the tree does not reach: those of
// the last commit if its meta page is lost, and those of torn parts.
func (in *inspector) scan() {
	known := in.out.meta.index
	in.out.revived = in.torn && in.free == nil
	for id := uint64(2); id < uint64(in.file.size/in.file.pageSize); id++ {
		p, err := in.file.read(id)
		if err != nil || p.kind != kindLeafPage || (in.used[id] && !in.torn) {
			continue
		}
		items, _ := p.items()
		for _, it := range items {
			if !it.bucket {
				in.save(it, id, known)
			} else if _, inline, err := it.bucketRoot(); err == nil && inline != nil {
				below, _ := inline.items()
				for _, it := range below {
					in.save(it, id, known)
				}
			}
		}
	}
}

// save takes a record from a page outside the tree. Pages on the free list
// hold what was overwritten or deleted, so that of these only what is newer
// than the whole tree counts. A session without TTL would never end, so it is
// not brought back.
func (in *inspector) save(it item, page, known uint64) {
	kind, body, err := openRecord(string(it.key), it.value)
	if err != nil {
		return
	}
	newer := false
	switch kind {
	case kindEntry:
		e, err := decodeEntry(string(it.key), body)
		newer = err == nil && e.ModifyIndex > known
	case kindMeta:
		newer = true
	case kindSession:
		s, err := decodeSession(string(it.key), body)
		if err != nil || s.TTL == 0 {
			return
		}
	}
	if newer || (in.torn && !in.free[page]) {
		in.take(it)
	}
}

func (f *findings) count() (entries, sessions uint64) {
	for id := range f.records {
		switch id.kind {
		case kindEntry:
			entries++
		case kindSession:
			sessions++
		}
	}
	return entries, sessions
}

// memory returns the memory that the records make.
func (f *findings) memory(now time.Time) (*memory, error) {
	m := newMemory()
	entries, sessions, delays := m.entries.Txn(), m.sessions.Txn(), m.delays.Txn()
	m.index = max(m.index, f.meta.index)
	for id, r := range f.records {
		key := []byte(id.key)
		switch id.kind {
		case kindEntry:
			e, err := decodeEntry(id.key, r.body)
			if err != nil {
				return nil, err
			}
			m.index = max(m.index, e.ModifyIndex)
			entries.Insert(key, e)
		case kindSession:
			s, err := decodeSession(id.key, r.body)
			if err != nil {
				return nil, err
			}
			m.index = max(m.index, s.CreateIndex)
			sessions.Insert(key, s)
		case kindDelay:
			until, err := decodeDelay(r.body)
			if err != nil {
				return nil, err
			}
			// A clock that was set back must not make the delay longer.
			if latest := now.Add(state.MaxLockDelay); until.After(latest) {
				until = latest
			}
			delays.Insert(key, until)
		}
	}
	m.entries, m.sessions, m.delays = entries.Commit(), sessions.Commit(), delays.Commit()
	m.forgotten = m.index
	return &m, nil
}
