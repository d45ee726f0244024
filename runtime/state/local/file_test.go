package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/runtime/state"
)

// written remembers every value that was ever written, by key.
type written map[string]map[string]bool

// makeFile writes a store with many keys, overwrites and deletions, closes it,
// and returns its file's bytes and what was written. The last index is returned
// too.
func makeFile(t testing.TB) ([]byte, written, uint64) {
	path := filepath.Join(t.TempDir(), "state.log")
	s := mustOpen(t, path)
	all := written{}
	set := func(key, value string) state.Op {
		if all[key] == nil {
			all[key] = map[string]bool{}
		}
		all[key][value] = true
		return state.Op{Kind: state.OpSet, Key: key, Value: []byte(value)}
	}
	id, err := s.CreateSession(t.Context(), state.SessionConfig{Name: "holder"})
	check(t, err)
	for round := range 12 {
		var ops []state.Op
		for i := range 20 {
			size := 10 + 37*((i*7+round)%23)
			if i == 3 {
				size = 9000 // more than a page
			}
			ops = append(ops, set(fmt.Sprintf("k/%02d", i), strings.Repeat(fmt.Sprintf("%d.%d ", round, i), size)[:size]))
		}
		for i := range 30 {
			ops = append(ops, set(fmt.Sprintf("round/%02d/%02d", round, i), "value"))
		}
		if round%3 == 2 {
			for i := range 30 {
				ops = append(ops, state.Op{Kind: state.OpDelete, Key: fmt.Sprintf("round/%02d/%02d", round-1, i)})
			}
		}
		_, err = s.Txn(t.Context(), ops...)
		check(t, err)
	}
	held := set("lock", "held")
	last, err := s.Txn(t.Context(), state.Op{Kind: state.OpLock, Key: "lock", Value: held.Value, Session: id})
	check(t, err)
	check(t, s.Close())
	data, err := os.ReadFile(path)
	check(t, err)
	return data, all, last
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(context.Background(), path, Options{NoSync: true})
	check(t, err)
	return s
}

// survives demands the law of damaged files: whatever the bytes, Open returns
// a clear error, or a store that holds only what was once written, that can
// be written to, and whose index is beyond all that were given out.
func survives(t interface {
	Fatalf(string, ...any)
	Helper()
}, dir string, data []byte, all written, last uint64) *Report {
	t.Helper()
	path := filepath.Join(dir, "state.log")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatalf("write: %v", err)
	}
	s, err := Open(context.Background(), path, Options{NoSync: true})
	if err != nil {
		if !strings.Contains(err.Error(), path) {
			t.Fatalf("the error does not name the file: %v", err)
		}
		return nil
	}
	defer s.Close()
	entries, _, err := s.List(context.Background(), "")
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	for _, e := range entries {
		if !all[e.Key][string(e.Value)] {
			t.Fatalf("%s has a value that was never written: %.60q", e.Key, e.Value)
		}
	}
	index, err := s.Txn(context.Background(), state.Op{Kind: state.OpSet, Key: "new", Value: []byte("v")})
	if err != nil || index <= last {
		t.Fatalf("transaction at %d after %d, error %v", index, last, err)
	}
	r := s.Report()
	if r.Damaged() {
		kept, err := os.ReadFile(r.Copy)
		if err != nil || !bytes.Equal(kept, data) {
			t.Fatalf("the damaged file was not kept as it was: %v", err)
		}
		if r.Found != len(entries) {
			t.Fatalf("report says %d keys, there are %d", r.Found, len(entries))
		}
		return &r
	}
	if len(entries) != expectedKeys && r.Cut == 0 {
		t.Fatalf("%d of %d keys and no damage reported", len(entries), expectedKeys)
	}
	return &r
}

// expectedKeys is the number of keys in makeFile's store.
const expectedKeys = 20 + 8*30 + 1

func TestAWholeFileIsNotRepaired(t *testing.T) {
	data, all, last := makeFile(t)
	if r := survives(t, t.TempDir(), data, all, last); r == nil || r.Damaged() {
		t.Errorf("report: %v", r)
	}
}

func TestATruncatedFileLosesNoMoreThanIsCutOff(t *testing.T) {
	data, all, last := makeFile(t)
	for size := 0; size < len(data); size += 1 + len(data)/60 {
		r := survives(t, t.TempDir(), data[:size], all, last)
		if r == nil {
			t.Fatalf("%d bytes: not opened", size)
		}
		if !r.Damaged() && r.Cut == 0 {
			t.Errorf("%d of %d bytes: no damage reported", size, len(data))
		}
	}
}

func TestAGarbledFileNeverPanicsAndNeverLies(t *testing.T) {
	data, all, last := makeFile(t)
	rapid.Check(t, func(rt *rapid.T) {
		bad := bytes.Clone(data)
		for range rapid.IntRange(1, 8).Draw(rt, "faults") {
			at := rapid.IntRange(0, len(bad)-1).Draw(rt, "at")
			if rapid.Bool().Draw(rt, "heads") { // of a record or near it
				at = max(bytes.LastIndex(bad[:at+1], []byte(recordMagic)), 0) + at%16
			}
			at = min(at, len(bad)-1)
			n := rapid.SampledFrom([]int{1, 1, 8, 512, 4096}).Draw(rt, "length")
			for i := at; i < min(at+n, len(bad)); i++ {
				bad[i] ^= byte(rapid.IntRange(1, 255).Draw(rt, "flip"))
				if n > 8 {
					copy(bad[i:min(at+n, len(bad))], bytes.Repeat([]byte{bad[i]}, n))
					break
				}
			}
		}
		dir, err := os.MkdirTemp("", "garbled")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		survives(rt, dir, bad, all, last)
	})
}

func TestAnyStretchCanBeLost(t *testing.T) {
	data, all, last := makeFile(t)
	for at := 0; at < len(data); at += 2003 {
		bad := bytes.Clone(data)
		clear(bad[at:min(at+64, len(bad))])
		survives(t, t.TempDir(), bad, all, last)
	}
}

// ends returns where each commit of a log ends.
func ends(t *testing.T, log []byte) (out []int) {
	t.Helper()
	for at := headerSize; at < len(log); {
		rec, err := readRecord(log[at:])
		check(t, err)
		at += rec.size
		if rec.kind == kindCommit {
			out = append(out, at)
		}
	}
	return out
}

func TestALogThatIsCutAnywhereHoldsTheCommitsBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.log")
	s := mustOpen(t, path)
	const commits = 5
	for i := range commits {
		_, err := s.Txn(t.Context(), setOp("a", fmt.Sprint(i)), setOp(fmt.Sprint("k", i), "v"))
		check(t, err)
	}
	check(t, s.Close())
	data, err := os.ReadFile(path)
	check(t, err)
	at := ends(t, data)
	if len(at) != commits+1 { // the first is that of the empty store
		t.Fatalf("%d commits", len(at))
	}
	for size := at[0]; size < len(data); size++ {
		whole := 0
		for whole < commits && at[whole+1] <= size {
			whole++
		}
		check(t, os.WriteFile(path, data[:size], 0o600))
		s := mustOpen(t, path)
		entries, index, err := s.List(t.Context(), "")
		check(t, err)
		want := whole
		if whole > 0 {
			want++ // and the key "a"
		}
		if len(entries) != want || whole > 0 && string(entries[0].Value) != fmt.Sprint(whole-1) {
			t.Fatalf("cut at %d of %d: %d keys, want %d: %v", size, len(data), len(entries), want, entries)
		}
		torn := size > at[whole]
		if r := s.Report(); r.Damaged() || (r.Cut > 0) != torn || torn && (index < repairGap || !strings.Contains(r.String(), "incomplete")) {
			t.Fatalf("cut at %d: index %d, %+v", size, index, r)
		}
		check(t, s.Close())
		if torn { // what was cut off does not come back, nor does an index
			s = mustOpen(t, path)
			if _, again, err := s.List(t.Context(), ""); err != nil || again < index || s.Report().Cut != 0 {
				t.Fatalf("cut at %d: index %d after %d, %+v, %v", size, again, index, s.Report(), err)
			}
			check(t, s.Close())
		}
	}
}

func TestARecordThatIsMissingIsDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.log")
	s := mustOpen(t, path)
	_, err := s.Txn(t.Context(), setOp("kept", "v"), setOp("lost", "v"))
	check(t, err)
	check(t, s.Close())
	data, err := os.ReadFile(path)
	check(t, err)
	at := bytes.Index(data, []byte("lost")) - recordHead
	rec, err := readRecord(data[at:])
	check(t, err)
	check(t, os.WriteFile(path, append(bytes.Clone(data[:at]), data[at+rec.size:]...), 0o600))
	s = mustOpen(t, path)
	defer s.Close()
	if r := s.Report(); !r.Damaged() || r.Found != 1 || r.Expected != 2 {
		t.Errorf("report: %+v", r)
	}
}

func TestADamagedValueIsNamedAndThePreviousOneStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.log")
	s := mustOpen(t, path)
	for _, value := range []string{"before", "after"} {
		_, err := s.Txn(t.Context(), setOp("jobs/shop", value), setOp("other", value))
		check(t, err)
	}
	_, err := s.Txn(t.Context(), setOp("later", "v"))
	check(t, err)
	check(t, s.Close())
	data, err := os.ReadFile(path)
	check(t, err)
	at := bytes.LastIndex(data, []byte("jobs/shop"))
	data[at+len("jobs/shop")+25] ^= 1 // the value, behind what encodeEntry puts before it
	check(t, os.WriteFile(path, data, 0o600))
	s = mustOpen(t, path)
	defer s.Close()
	if r := s.Report(); !strings.Contains(r.Damage, `the value of "jobs/shop" at byte`) || r.Revived || r.Found != 3 {
		t.Errorf("report: %+v", r)
	}
	for key, want := range map[string]string{"jobs/shop": "before", "other": "after", "later": "v"} {
		if e, err := s.Get(t.Context(), key); err != nil || string(e.Value) != want {
			t.Errorf("%s is %q, want %q (%v)", key, e.Value, want, err)
		}
	}
}

func TestALostSessionFreesItsLockAtOnce(t *testing.T) {
	data, all, last := makeFile(t)
	dir := t.TempDir()
	survives(t, dir, bytes.ReplaceAll(data, []byte(`"holder"`), []byte(`"HOLDER"`)), all, last)
	s := mustOpen(t, filepath.Join(dir, "state.log"))
	defer s.Close()
	if e, err := s.Get(t.Context(), "lock"); err != nil || e.Session != "" {
		t.Errorf("lock is %+v, error %v", e, err)
	}
	id, err := s.CreateSession(t.Context(), state.SessionConfig{})
	check(t, err)
	_, err = s.Txn(t.Context(), state.Op{Kind: state.OpLock, Key: "lock", Session: id})
	check(t, err)
}

// FuzzOpen's law: whatever is in the file, Open panics never, and what it
// returns was once written. (Run it with -fuzzminimizetime=1x: making inputs of
// this size smaller takes longer than finding them.)
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "state.log")
	s := mustOpen(f, path)
	all := written{}
	for i := range 4 {
		key, value := fmt.Sprint("k", i%3), fmt.Sprint("value", i)
		if all[key] == nil {
			all[key] = map[string]bool{}
		}
		all[key][value] = true
		_, err := s.Txn(f.Context(), state.Op{Kind: state.OpSet, Key: key, Value: []byte(value)})
		check(f, err)
	}
	check(f, s.Close())
	data, err := os.ReadFile(path)
	check(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "state.log")
		check(t, os.WriteFile(path, data, 0o600))
		s, err := Open(t.Context(), path, Options{NoSync: true})
		if err != nil {
			return
		}
		defer s.Close()
		entries, _, err := s.List(t.Context(), "")
		check(t, err)
		for _, e := range entries {
			if !all[e.Key][string(e.Value)] {
				t.Fatalf("%s has a value that was never written: %q", e.Key, e.Value)
			}
		}
		_, err = s.Txn(t.Context(), state.Op{Kind: state.OpSet, Key: "new", Value: []byte("v")})
		check(t, err)
	})
}

func TestOneDamagedValueCostsOneKey(t *testing.T) {
	data, all, last := makeFile(t)
	bad := bytes.Clone(data)
	at := bytes.LastIndex(bad, []byte("11.3 11.3 11.3"))
	bad[at] ^= 1
	r := survives(t, t.TempDir(), bad, all, last)
	if r == nil || r.Found < expectedKeys-1 || r.Expected != expectedKeys {
		t.Fatalf("report: %+v", r)
	}
	if !strings.Contains(r.String(), fmt.Sprintf("found %d of %d keys", r.Found, r.Expected)) {
		t.Errorf("report reads %q", r)
	}
}

func TestTheDamagedEndOfACommitLosesNoKey(t *testing.T) {
	data, all, last := makeFile(t)
	for _, end := range ends(t, data) {
		bad := bytes.Clone(data)
		bad[end-recordTail-1] ^= 1
		r := survives(t, t.TempDir(), bad, all, last)
		if r == nil || !r.Damaged() || r.Found != expectedKeys {
			t.Errorf("the commit that ends at byte %d: %+v", end, r)
		}
	}
}

func TestDeletedKeysDoNotComeBack(t *testing.T) {
	data, all, last := makeFile(t)
	bad := bytes.Clone(data)
	bad[bytes.LastIndex(bad, []byte("11.3 11.3 11.3"))] ^= 1
	dir := t.TempDir()
	survives(t, dir, bad, all, last)
	s := mustOpen(t, filepath.Join(dir, "state.log"))
	defer s.Close()
	if gone, _, err := s.List(t.Context(), "round/01/"); err != nil || len(gone) > 0 {
		t.Errorf("%d deleted keys are back, error %v", len(gone), err)
	}
}

func TestASecondOpenerIsToldWhoHoldsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.log")
	s := mustOpen(t, path)
	_, err := Open(t.Context(), path, Options{})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("got error %v", err)
	}
	check(t, s.Close())
	check(t, mustOpen(t, path).Close())
}

func TestAFileThatAnotherProgramHasLockedIsInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.log")
	check(t, mustOpen(t, path).Close())
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	check(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("got error %v", err)
	}
}

func TestTwoDamagedFilesOfOneSecondAreBothKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.log")
	for _, text := range []string{"first", "second"} {
		check(t, os.WriteFile(path, []byte(text), 0o600))
		kept, err := keepDamaged(path, testNow)
		check(t, err)
		if got, err := os.ReadFile(kept); err != nil || string(got) != text {
			t.Errorf("%s holds %q, error %v", kept, got, err)
		}
		check(t, os.Remove(path))
	}
	check(t, os.WriteFile(path, []byte("third"), 0o600))
	copied := path + ".copy"
	check(t, copyFile(path, copied))
	if got, err := os.ReadFile(copied); err != nil || string(got) != "third" {
		t.Errorf("the copy holds %q, error %v", got, err)
	}
}

func TestAFileOfANewerFormatIsRefusedAndLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.log")
	check(t, os.WriteFile(path, append(encodeHeader(Format+1), "whatever"...), 0o600))
	before, err := os.ReadFile(path)
	check(t, err)
	_, err = Open(t.Context(), path, Options{})
	if !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), path) {
		t.Errorf("got error %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", err)
	}
}

func TestWhatIsNoFileIsAClearError(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{
		"a directory":       dir,
		"no such directory": filepath.Join(dir, "none", "state.log"),
	} {
		if _, err := Open(t.Context(), path, Options{}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}
