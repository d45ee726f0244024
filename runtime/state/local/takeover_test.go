package local

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/synergymesh/meshrun/runtime/state"
)

// writeBolt writes the memory as a meshrun before format 2 did.
func writeBolt(t *testing.T, path string, m *memory) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	check(t, err)
	check(t, db.Update(func(tx *bbolt.Tx) error {
		put := func(kind byte, key string, body []byte) {
			bucket, err := tx.CreateBucketIfNotExists([]byte{kind})
			check(t, err)
			table := crc32.MakeTable(crc32.Castagnoli)
			sum := crc32.Update(uint32(kind), table, []byte(key))
			sum = crc32.Update(sum, table, binary.BigEndian.AppendUint32(nil, uint32(len(key))))
			rec := binary.BigEndian.AppendUint32([]byte{kind}, crc32.Update(sum, table, body))
			check(t, bucket.Put([]byte(key), append(rec, body...)))
		}
		var meta []byte
		for _, n := range []uint64{1, m.index, uint64(m.entries.Len()), uint64(m.sessions.Len())} {
			meta = binary.BigEndian.AppendUint64(meta, n)
		}
		put('m', "state", meta)
		for id := range m.all() {
			body, err := m.body(id)
			check(t, err)
			put(byte(id.kind), id.key, body)
		}
		return nil
	}))
	check(t, db.Close())
}

// oldState is a store with keys, a session, a lock and a lock delay.
func oldState(t *testing.T) *memory {
	t.Helper()
	s := OpenMemory(Options{})
	defer s.Close()
	holder, err := s.CreateSession(t.Context(), state.SessionConfig{Name: "holder", TTL: time.Minute})
	check(t, err)
	gone, err := s.CreateSession(t.Context(), state.SessionConfig{LockDelay: time.Minute})
	check(t, err)
	_, err = s.Txn(t.Context(), setOp("jobs/shop", strings.Repeat("definition ", 3000)), setOp("empty", ""),
		state.Op{Kind: state.OpLock, Key: "locks/a", Session: holder}, state.Op{Kind: state.OpLock, Key: "locks/b", Session: gone})
	check(t, err)
	check(t, s.DestroySession(t.Context(), gone))
	return s.view.Load()
}

func TestTheStateOfAnOlderMeshrunIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	path, old := filepath.Join(dir, "state.log"), filepath.Join(dir, "state.db")
	m := oldState(t)
	writeBolt(t, old, m)
	for range 2 { // and once more, from the log
		s := mustOpen(t, path)
		got := s.view.Load()
		if got.index != m.index || got.entries.Len() != 4 || got.sessions.Len() != 1 || got.delays.Len() != 1 {
			t.Fatalf("index %d of %d, %d keys, %d sessions, %d delays", got.index, m.index, got.entries.Len(), got.sessions.Len(), got.delays.Len())
		}
		for id := range m.all() {
			want, err := m.body(id)
			check(t, err)
			if body, err := got.body(id); err != nil || !bytes.Equal(body, want) {
				t.Errorf("%c %s differs, %v", id.kind, id.key, err)
			}
		}
		check(t, s.Close())
	}
	if _, err := os.Stat(old + ".old"); err != nil {
		t.Errorf("the old file is not kept: %v", err)
	}
	// Where the machine stopped right after the log was made.
	check(t, os.Rename(old+".old", old))
	check(t, mustOpen(t, path).Close())
	if _, err := os.Stat(old); err == nil {
		t.Error("the old file still has its name")
	}
}

func TestADamagedStateOfAnOlderMeshrunIsRefusedAndLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path, old := filepath.Join(dir, "state.log"), filepath.Join(dir, "state.db")
	writeBolt(t, old, oldState(t))
	data, err := os.ReadFile(old)
	check(t, err)
	value := bytes.Index(data, []byte("definition"))
	for name, bad := range map[string][]byte{
		"cut in half": data[:len(data)/2],
		"empty":       {},
		"garbage":     bytes.Repeat([]byte{7}, len(data)),
		"a value":     append(append(bytes.Clone(data[:value]), 'D'), data[value+1:]...),
		"page heads":  zeroHeads(data),
	} {
		check(t, os.WriteFile(old, bad, 0o600))
		s, err := Open(t.Context(), path, Options{})
		if err == nil {
			check(t, s.Close())
			t.Fatalf("%s: opened", name)
		}
		if !strings.Contains(err.Error(), old) || !strings.Contains(err.Error(), "which repairs it") {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(old); err != nil || !bytes.Equal(after, bad) {
			t.Errorf("%s: the file was changed: %v", name, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: there is a log", name)
		}
	}
}

// zeroHeads clears the heads of all pages but those of the meta pages.
func zeroHeads(data []byte) []byte {
	bad := bytes.Clone(data)
	for at := 2 * os.Getpagesize(); at < len(bad); at += os.Getpagesize() {
		clear(bad[at : at+64])
	}
	return bad
}
