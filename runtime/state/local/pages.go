package local

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// A bbolt file is read here page by page, without mapping it and without
// trusting anything in it: bbolt itself panics on a damaged page, and a mapped
// file that is too short ends the process. The layout, in the machine's own
// byte order:
//
//	page    id (8) | kind (2) | count (2) | further pages that belong to it (4) | body
//	leaf    count × [kind (4) | offset (4) | key size (4) | value size (4)] | keys and values
//	branch  count × [offset (4) | key size (4) | page (8)] | keys
//	meta    magic (4) | version (4) | page size (4) | … (4) | root (8) | … (8) | free list (8) | pages (8) | commit (8) | FNV-1a of these (8)
//	bucket  root, or 0 for a page within the value (8) | … (8) | page
//
// An offset counts from its own element.
const (
	pageHeader = 16
	element    = 16
	metaSize   = 64

	kindBranchPage = 1
	kindLeafPage   = 2
	kindFreePage   = 16

	boltMagic   = 0xED0CDAED
	boltVersion = 2

	maxPageSize = 64 << 10
)

var native = binary.NativeEndian

// page is one page with the further ones that belong to it.
type page struct {
	id    uint64
	kind  uint16
	count int
	extra uint64
	data  []byte
}

// item is one element of a leaf or a branch.
type item struct {
	key    []byte
	value  []byte // of a leaf
	bucket bool   // the value is a bucket
	child  uint64 // of a branch
}

// boltMeta is what a meta page says.
type boltMeta struct {
	pageSize int64
	root     uint64
	free     uint64
	pages    uint64
	commit   uint64
}

// pageFile reads the pages of a file of known size.
type pageFile struct {
	r        io.ReaderAt
	size     int64
	pageSize int64
}

func parseMeta(b []byte) (boltMeta, bool) {
	if len(b) < pageHeader+metaSize {
		return boltMeta{}, false
	}
	b = b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(b[:56])
	m := boltMeta{
		pageSize: int64(native.Uint32(b[8:])),
		root:     native.Uint64(b[16:]),
		free:     native.Uint64(b[32:]),
		pages:    native.Uint64(b[40:]),
		commit:   native.Uint64(b[48:]),
	}
	ok := native.Uint32(b) == boltMagic && native.Uint32(b[4:]) == boltVersion && native.Uint64(b[56:]) == sum.Sum64()
	return m, ok && m.pageSize >= 512 && m.pageSize <= maxPageSize && m.pageSize&(m.pageSize-1) == 0
}

// metas returns the valid meta pages, the newer one first.
func (f *pageFile) metas() []boltMeta {
	var found []boltMeta
	head := make([]byte, pageHeader+metaSize)
	read := func(at int64) (boltMeta, bool) {
		n, _ := f.r.ReadAt(head, at)
		return parseMeta(head[:n])
	}
	if m, ok := read(0); ok {
		found = append(found, m)
	}
	for size := int64(512); size <= maxPageSize; size *= 2 {
		if m, ok := read(size); ok && m.pageSize == size && (len(found) == 0 || found[0].pageSize == size) {
			found = append(found, m)
			break
		}
	}
	if len(found) == 2 && found[0].commit < found[1].commit {
		found[0], found[1] = found[1], found[0]
	}
	return found
}

// read returns a page, with its header checked against its place.
func (f *pageFile) read(id uint64) (*page, error) {
	if id > uint64(f.size/f.pageSize) {
		return nil, fmt.Errorf("page %d is beyond the end of the file", id)
	}
	head := make([]byte, f.pageSize)
	if _, err := f.r.ReadAt(head, int64(id)*f.pageSize); err != nil {
		return nil, fmt.Errorf("page %d cannot be read: %w", id, err)
	}
	p := parsePage(head)
	if p.id != id {
		return nil, fmt.Errorf("page %d says that it is page %d", id, p.id)
	}
	if p.extra == 0 {
		return p, nil
	}
	length := int64(p.extra+1) * f.pageSize
	if int64(id)*f.pageSize+length > f.size {
		return nil, fmt.Errorf("page %d reaches beyond the end of the file", id)
	}
	p.data = make([]byte, length)
	if _, err := f.r.ReadAt(p.data, int64(id)*f.pageSize); err != nil {
		return nil, fmt.Errorf("page %d cannot be read: %w", id, err)
	}
	return p, nil
}

// parsePage reads the header of at least pageHeader bytes.
func parsePage(b []byte) *page {
	return &page{
		id:    native.Uint64(b),
		kind:  native.Uint16(b[8:]),
		count: int(native.Uint16(b[10:])),
		extra: uint64(native.Uint32(b[12:])),
		data:  b,
	}
}

// items returns the elements of a leaf or a branch. With an error it returns
// those that could be read.
func (p *page) items() ([]item, error) {
	if p.kind != kindLeafPage && p.kind != kindBranchPage {
		return nil, fmt.Errorf("page %d is of kind %d, neither leaf nor branch", p.id, p.kind)
	}
	var items []item
	var firstErr error
	for i := range p.count {
		it, err := p.item(pageHeader + i*element)
		if err != nil && firstErr == nil {
			firstErr = fmt.Errorf("page %d, element %d: %w", p.id, i, err)
		}
		if err == nil {
			items = append(items, it)
		}
	}
	return items, firstErr
}

// item reads the element that begins at an offset in the page.
func (p *page) item(at int) (item, error) {
	if at+element > len(p.data) {
		return item{}, fmt.Errorf("it lies beyond the end of the page")
	}
	e := p.data[at:]
	var it item
	var offset, keySize, valueSize uint64
	if p.kind == kindLeafPage {
		it.bucket = native.Uint32(e) == 1
		offset, keySize, valueSize = uint64(native.Uint32(e[4:])), uint64(native.Uint32(e[8:])), uint64(native.Uint32(e[12:]))
	} else {
		offset, keySize = uint64(native.Uint32(e)), uint64(native.Uint32(e[4:]))
		it.child = native.Uint64(e[8:])
	}
	if keySize == 0 || offset+keySize+valueSize > uint64(len(e)) {
		return item{}, fmt.Errorf("its key or value lies beyond the end of the page")
	}
	it.key, it.value = e[offset:offset+keySize], e[offset+keySize:offset+keySize+valueSize]
	return it, nil
}

// bucketRoot returns where a bucket's tree begins: a page of its own, or the
// page within the value.
func (it item) bucketRoot() (root uint64, inline *page, err error) {
	if !it.bucket || len(it.value) < 16 {
		return 0, nil, fmt.Errorf("%q is not a bucket", it.key)
	}
	if root = native.Uint64(it.value); root != 0 {
		return root, nil, nil
	}
	if len(it.value) < 16+pageHeader {
		return 0, nil, fmt.Errorf("bucket %q is too short", it.key)
	}
	inline = parsePage(it.value[16:])
	if inline.kind != kindLeafPage {
		return 0, nil, fmt.Errorf("bucket %q holds a page of kind %d", it.key, inline.kind)
	}
	return 0, inline, nil
}

// freeList returns the pages that are not in use.
func (f *pageFile) freeList(m boltMeta) (map[uint64]bool, *page, error) {
	p, err := f.read(m.free)
	if err != nil {
		return nil, nil, fmt.Errorf("free list: %w", err)
	}
	if p.kind != kindFreePage {
		return nil, nil, fmt.Errorf("free list: page %d is of kind %d", p.id, p.kind)
	}
	ids, n := p.data[pageHeader:], uint64(p.count)
	if n == 0xFFFF {
		n, ids = native.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids)/8) {
		return nil, nil, fmt.Errorf("free list: %d pages do not fit in it", n)
	}
	free := make(map[uint64]bool, n)
	for i := range n {
		id := native.Uint64(ids[i*8:])
		if id < 2 || id >= m.pages || free[id] {
			return nil, nil, fmt.Errorf("free list: page %d is wrong or twice in it", id)
		}
		free[id] = true
	}
	return free, p, nil
}

// within reports whether a key lies in [low, high); nil is no bound.
func within(key, low, high []byte) bool {
	return (low == nil || bytes.Compare(low, key) <= 0) && (high == nil || bytes.Compare(key, high) < 0)
}
