package state

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
)

// maxIndented is the largest JSON that is stored with indentation, which about
// doubles it: nobody reads larger ones by eye, and the limits are Consul's.
const maxIndented = 64 << 10

// Encode writes a value as it is stored: JSON, indented to be read by people
// unless it is large.
func Encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	data := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(data) > maxIndented {
		return bytes.Clone(data) // without the room that the buffer has left
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, data, "", "  "); err != nil {
		panic(fmt.Sprintf("indent %T: %v", v, err))
	}
	return bytes.Clone(indented.Bytes())
}

// Decode reads the value of an entry. Fields that this version doesn't know
// are left out.
func Decode[T any](e Entry) (T, error) {
	var v T
	if err := json.Unmarshal(e.Value, &v); err != nil {
		var none T
		return none, fmt.Errorf("decode %s: %w", e.Key, err)
	}
	return v, nil
}

// DecodeAll reads the values of all entries, in their order.
func DecodeAll[T any](entries []Entry) ([]T, error) {
	out := make([]T, 0, len(entries))
	for _, e := range entries {
		v, err := Decode[T](e)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// GetAs returns the value of a key, and its entry for a later check of its
// index. It returns ErrNotFound if there is none.
func GetAs[T any](ctx context.Context, s Store, key string) (T, Entry, error) {
	e, err := s.Get(ctx, key)
	if err != nil {
		var none T
		return none, e, err
	}
	v, err := Decode[T](e)
	return v, e, err
}

// ListAs returns the values under a prefix in key order, and the index to
// watch from.
func ListAs[T any](ctx context.Context, s Store, prefix string) ([]T, uint64, error) {
	entries, index, err := s.List(ctx, prefix)
	if err != nil {
		return nil, 0, err
	}
	values, err := DecodeAll[T](entries)
	return values, index, err
}

// Batches splits operations into as few transactions in their order as the
// limits allow. An operation that exceeds them by itself stands alone.
func Batches(ops []Op) [][]Op {
	var out [][]Op
	first, size := 0, 0
	for i, op := range ops {
		if i > first && (i-first == MaxTxnOps || size+op.Size() > MaxTxnBytes) {
			out = append(out, ops[first:i])
			first, size = i, 0
		}
		size += op.Size()
	}
	if first < len(ops) {
		out = append(out, ops[first:])
	}
	return out
}
