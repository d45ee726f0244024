package state

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The portable form of a whole state is text: a header, a line per key, and a
// trailer with the number of keys and the SHA-256 of all lines before it.
const (
	exportFormat  = "meshrun snapshot"
	exportVersion = 1
	// MaxExportBytes is the size of the largest snapshot that Import reads.
	MaxExportBytes = 256 << 20
)

// Sentinels of Import.
var (
	// ErrNotEmpty: the store holds jobs already, or what is left of some.
	ErrNotEmpty = errors.New("the store is not empty")
	// ErrDamaged: what was to be imported is not a whole snapshot.
	ErrDamaged = errors.New("the snapshot is damaged")
)

// exportHeader is the first line.
type exportHeader struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	Index   uint64    `json:"index"`
}

// exportLine is one key. The value is text where it can be.
type exportLine struct {
	Key   string `json:"key"`
	Text  string `json:"text,omitempty"`
	Bytes []byte `json:"bytes,omitempty"`
}

// exportTrailer is the last line.
type exportTrailer struct {
	Keys   *int   `json:"keys"`
	SHA256 string `json:"sha256"`
}

// Export writes everything under Root as portable text and returns the number
// of keys. What a session holds is left out, and so are locks: they end with
// their holders. The text holds whatever secrets the jobs hold.
func Export(ctx context.Context, s Store, w io.Writer, now time.Time) (int, error) {
	entries, index, err := s.List(ctx, Root)
	if err != nil {
		return 0, fmt.Errorf("export state: %w", err)
	}
	sum := sha256.New()
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(io.MultiWriter(out, sum))
	enc.SetEscapeHTML(false)
	err = enc.Encode(exportHeader{exportFormat, exportVersion, now.UTC(), index})
	n := 0
	for _, e := range entries {
		if e.Session != "" || strings.HasPrefix(e.Key, LocksPrefix) {
			continue
		}
		line := exportLine{Key: e.Key}
		if utf8.Valid(e.Value) {
			line.Text = string(e.Value)
		} else {
			line.Bytes = e.Value
		}
		err = errors.Join(err, enc.Encode(line))
		n++
	}
	err = errors.Join(err, json.NewEncoder(out).Encode(exportTrailer{&n, hex.EncodeToString(sum.Sum(nil))}), out.Flush())
	if err != nil {
		return 0, fmt.Errorf("export state: %w", err)
	}
	return n, nil
}

// Import writes what Export wrote into a store without jobs, and returns the
// number of keys that it wrote. What agents that run already write by
// themselves (nodes, locks, reports, events) may be there, and is left as it
// is. The whole text is checked first; if writing fails halfway, what was
// written is removed again. It returns ErrDamaged or ErrNotEmpty.
func Import(ctx context.Context, s Store, r io.Reader) (int, error) {
	ops, _, err := readExport(r)
	if err != nil {
		return 0, fmt.Errorf("import state: %w", err)
	}
	present, _, err := s.List(ctx, Root)
	if err != nil {
		return 0, fmt.Errorf("import state: %w", err)
	}
	there := map[string]bool{}
	for _, e := range present {
		for _, prefix := range []string{JobsPrefix, HistoryPrefix, PlacementsPrefix, AssignmentsPrefix} {
			if strings.HasPrefix(e.Key, prefix) {
				return 0, fmt.Errorf("import state: %w: there is %s; import into a store that never had jobs", ErrNotEmpty, e.Key)
			}
		}
		there[e.Key] = true
	}
	ops = slices.DeleteFunc(ops, func(op Op) bool { return there[op.Key] })
	var undo []Op
	for _, batch := range Batches(ops) {
		index, err := s.Txn(ctx, batch...)
		if err != nil {
			return 0, errors.Join(fmt.Errorf("import state: %w", err), undoImport(ctx, s, undo))
		}
		for _, op := range batch {
			undo = append(undo, Op{Kind: OpDeleteCAS, Key: op.Key, Index: index})
		}
	}
	return len(ops), nil
}

// undoImport removes what a failed import wrote, even if its context is over.
func undoImport(ctx context.Context, s Store, undo []Op) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, batch := range Batches(undo) {
		if _, err := s.Txn(ctx, batch...); err != nil {
			return fmt.Errorf("undo import (the store holds a part of the snapshot): %w", err)
		}
	}
	return nil
}

// readExport checks a whole snapshot and returns the operations that write it.
// The wanted jobs come last, so that nobody acts on half a state.
func readExport(r io.Reader) ([]Op, exportHeader, error) {
	var none exportHeader
	text, err := io.ReadAll(io.LimitReader(r, MaxExportBytes+1))
	if err != nil {
		return nil, none, err
	}
	if len(text) > MaxExportBytes {
		return nil, none, fmt.Errorf("more than %d bytes: %w", MaxExportBytes, ErrTooLarge)
	}
	body := bytes.TrimSuffix(text, []byte("\n"))
	end := bytes.LastIndexByte(body, '\n') + 1
	var trailer exportTrailer
	if err := json.Unmarshal(body[end:], &trailer); err != nil || trailer.Keys == nil {
		return nil, none, fmt.Errorf("its last line is missing, so it may have been cut off: %w", ErrDamaged)
	}
	if sum := sha256.Sum256(text[:end]); hex.EncodeToString(sum[:]) != trailer.SHA256 {
		return nil, none, fmt.Errorf("its checksum does not match: %w", ErrDamaged)
	}
	return exportOps(body[:end], *trailer.Keys)
}

// exportOps decodes header and keys, whose checksum was right.
func exportOps(body []byte, keys int) ([]Op, exportHeader, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	var header exportHeader
	if err := dec.Decode(&header); err != nil || header.Format != exportFormat {
		return nil, header, fmt.Errorf("it does not begin as a snapshot: %w", ErrDamaged)
	}
	if header.Version > exportVersion {
		return nil, header, fmt.Errorf("its version is %d, and this meshrun reads up to %d; use a newer one: %w", header.Version, exportVersion, ErrInvalid)
	}
	var first, jobs []Op
	for dec.More() {
		var line exportLine
		if err := dec.Decode(&line); err != nil {
			return nil, header, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if !strings.HasPrefix(line.Key, Root) {
			return nil, header, fmt.Errorf("key %q is not under %s: %w", line.Key, Root, ErrInvalid)
		}
		op := Op{Kind: OpCAS, Key: line.Key, Value: line.Bytes}
		if line.Bytes == nil {
			op.Value = []byte(line.Text)
		}
		if strings.HasPrefix(line.Key, JobsPrefix) {
			jobs = append(jobs, op)
		} else {
			first = append(first, op)
		}
	}
	ops := append(first, jobs...)
	if len(ops) != keys {
		return nil, header, fmt.Errorf("it has %d keys of %d: %w", len(ops), keys, ErrDamaged)
	}
	return ops, header, nil
}

// Contents is what is in a snapshot.
type Contents struct {
	Created time.Time `json:"created"`
	// Index is the store's at that time.
	Index uint64 `json:"index"`
	Bytes int64  `json:"bytes"`
	Keys  int    `json:"keys"`
	// Kinds counts the keys by the first part of their names: "jobs".
	Kinds map[string]int `json:"kinds"`
	// Jobs are the names of the wanted jobs, sorted.
	Jobs []string `json:"jobs"`
}

// Inspect reads what Export wrote, checks it as Import does, and returns what
// is in it. It returns ErrDamaged if it is not whole.
func Inspect(r io.Reader) (Contents, error) {
	counter := &countingReader{r: r}
	ops, header, err := readExport(counter)
	if err != nil {
		return Contents{}, fmt.Errorf("inspect snapshot: %w", err)
	}
	c := Contents{Created: header.Created, Index: header.Index, Bytes: counter.n, Keys: len(ops), Kinds: map[string]int{}, Jobs: []string{}}
	for _, op := range ops {
		kind, name, _ := strings.Cut(strings.TrimPrefix(op.Key, Root), "/")
		c.Kinds[kind]++
		if kind == "jobs" {
			c.Jobs = append(c.Jobs, name)
		}
	}
	slices.Sort(c.Jobs)
	return c, nil
}

// countingReader counts what is read.
type countingReader struct {
	r io.Reader
	n int64
}

// Read reads.
func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
