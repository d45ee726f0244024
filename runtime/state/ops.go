package state

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxKeyBytes is the length of the longest key.
const MaxKeyBytes = 512

// ErrInvalid: an operation, a key or a session's configuration makes no sense.
var ErrInvalid = errors.New("invalid")

// HistoryKeep is how many versions of a job history keeps.
const HistoryKeep = 50

// HistoryOps returns what keeps a new version of a job in history, and drops the
// one that is too old by then. Whoever makes a version does it.
func HistoryOps(job string, version uint64, value []byte) []Op {
	ops := []Op{{Kind: OpSet, Key: HistoryKey(job, version), Value: value}}
	if version > HistoryKeep {
		ops = append(ops, Op{Kind: OpDelete, Key: HistoryKey(job, version-HistoryKeep)})
	}
	return ops
}

// opOverhead is what one operation weighs in a transaction beside its key, its
// value and its session: names, quotes and braces of its JSON, with the longest
// verb and the largest index.
const opOverhead = 152

// Size returns the bytes that the operation counts for within MaxTxnBytes: a
// transaction travels to Consul as JSON with its values in base64.
func (op Op) Size() int {
	return opOverhead + len(op.Key) + len(op.Session) + base64.StdEncoding.EncodedLen(len(op.Value))
}

// TxnSize returns the bytes that count for MaxTxnBytes.
func TxnSize(ops []Op) int {
	size := 0
	for _, op := range ops {
		size += op.Size()
	}
	return size
}

// CheckOps returns ErrTooLarge or ErrInvalid, with the operation and the key
// in its words, if no store may take the transaction. Every implementation of
// Store.Txn calls it first.
func CheckOps(ops []Op) error {
	if len(ops) > MaxTxnOps {
		return fmt.Errorf("check transaction: %d operations, of at most %d: %w", len(ops), MaxTxnOps, ErrTooLarge)
	}
	for i, op := range ops {
		if err := op.check(); err != nil {
			return fmt.Errorf("check operation %d (%s %s): %w", i+1, op.Kind, op.Key, err)
		}
	}
	if size := TxnSize(ops); size > MaxTxnBytes {
		big := ops[0]
		for _, op := range ops {
			if op.Size() > big.Size() {
				big = op
			}
		}
		return fmt.Errorf("check transaction: its %d operations take %d bytes, of at most %d; the largest is %s %s with %d: %w",
			len(ops), size, MaxTxnBytes, big.Kind, big.Key, big.Size(), ErrTooLarge)
	}
	return nil
}

// check returns what is wrong with one operation.
func (op Op) check() error {
	switch op.Kind {
	case OpSet, OpCAS, OpDelete, OpDeleteCAS, OpCheckIndex, OpCheckMissing:
	case OpCheckSession, OpLock, OpUnlock:
		if op.Session == "" {
			return fmt.Errorf("it names no session: %w", ErrInvalid)
		}
	default:
		return fmt.Errorf("there is no such kind of operation: %w", ErrInvalid)
	}
	if len(op.Value) > MaxValueBytes {
		return fmt.Errorf("its value has %d bytes, of at most %d: %w", len(op.Value), MaxValueBytes, ErrTooLarge)
	}
	return CheckKey(op.Key)
}

// CheckKey returns ErrInvalid or ErrTooLarge for what cannot be a key.
func CheckKey(key string) error {
	if key == "" {
		return fmt.Errorf("the key is empty: %w", ErrInvalid)
	}
	return CheckPrefix(key)
}

// CheckPrefix returns ErrInvalid or ErrTooLarge for what can't be the
// beginning of a key. The empty prefix is the beginning of all.
func CheckPrefix(prefix string) error {
	if strings.HasPrefix(prefix, "/") {
		return fmt.Errorf("the key %q begins with a slash: %w", prefix, ErrInvalid)
	}
	if len(prefix) > MaxKeyBytes {
		return fmt.Errorf("the key %.40q… has %d bytes, of at most %d: %w", prefix, len(prefix), MaxKeyBytes, ErrTooLarge)
	}
	if !utf8.ValidString(prefix) || strings.ContainsFunc(prefix, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("the key %q has a character that is not printable: %w", prefix, ErrInvalid)
	}
	// Consul takes a key for the path of a URL, which it cleans: it would read
	// another key than it has written.
	parts := strings.Split(prefix, "/")
	for i, part := range parts {
		if part == "." || part == ".." || (part == "" && i < len(parts)-1) {
			return fmt.Errorf("the key %q has a part %q: %w", prefix, part, ErrInvalid)
		}
	}
	return nil
}

// Check returns ErrInvalid if no store may create such a session.
func (c SessionConfig) Check() error {
	if c.TTL != 0 && (c.TTL < MinSessionTTL || c.TTL > MaxSessionTTL) {
		return fmt.Errorf("check session %q: a TTL of %v is not within %v and %v: %w", c.Name, c.TTL, MinSessionTTL, MaxSessionTTL, ErrInvalid)
	}
	if c.LockDelay < 0 || c.LockDelay > MaxLockDelay {
		return fmt.Errorf("check session %q: a lock delay of %v is not within 0s and %v: %w", c.Name, c.LockDelay, MaxLockDelay, ErrInvalid)
	}
	if strings.Contains(c.Node, "/") {
		return fmt.Errorf("check session %q: the node %q has a slash: %w", c.Name, c.Node, ErrInvalid)
	}
	switch c.Behavior {
	case "", BehaviorRelease, BehaviorDelete:
		return nil
	}
	return fmt.Errorf("check session %q: behavior %q is neither %q nor %q: %w", c.Name, c.Behavior, BehaviorRelease, BehaviorDelete, ErrInvalid)
}
