// Package state is the contract of meshrun's memory (layer L-E): a small
// key-value store with indexes, transactions, blocking watches, sessions and
// locks, shaped by what Consul offers. Package local implements it for one
// machine; statetest holds the suite that every implementation must pass.
//
// The package also holds what is the same over every store: the layout of the
// keys, and the replay of events.
package state

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Limits of one transaction and one value, which every implementation refuses
// to exceed with ErrTooLarge. They are Consul's, 128 operations and 512 KiB, less
// two operations by which the store over Consul learns the index of a deletion. A
// transaction's bytes are counted as Consul sees them, with values in base64
// (TxnSize), so that about 380 KiB of values fit.
const (
	MaxTxnOps     = 128 - 2
	MaxValueBytes = 512 << 10
	MaxTxnBytes   = 512<<10 - 2<<10
)

// Bounds of a session. A store enforces a TTL no earlier than the TTL and no
// later than twice the TTL after the last renewal.
const (
	MinSessionTTL = 10 * time.Second
	MaxSessionTTL = 24 * time.Hour
	MaxLockDelay  = 60 * time.Second
)

// Sentinels. Implementations wrap them; callers use errors.Is.
var (
	// ErrNotFound: there is no such key.
	ErrNotFound = errors.New("not found")
	// ErrConflict: a check of the transaction failed and nothing was written.
	// It is always wrapped in a *TxnError that names the operations.
	ErrConflict = errors.New("conflict")
	// ErrTooLarge: a transaction or a value exceeds the limits.
	ErrTooLarge = errors.New("too large")
	// ErrSessionNotFound: the session does not exist (any more).
	ErrSessionNotFound = errors.New("session not found")
	// ErrClosed: the store has been closed.
	ErrClosed = errors.New("store is closed")
	// ErrUnavailable: the store cannot be reached now; trying again may help.
	ErrUnavailable = errors.New("store is unavailable")
	// ErrDenied: the store refuses to do that for the token that was given.
	ErrDenied = errors.New("permission denied")
)

// Entry is a key and its value.
type Entry struct {
	Key   string
	Value []byte
	// CreateIndex and ModifyIndex are the indexes of the transactions that
	// created and last changed the key. Indexes only grow, over the whole store.
	CreateIndex uint64
	ModifyIndex uint64
	// LockIndex counts how often the key's lock was taken; Session holds the
	// lock now, if it is not empty. An OpSet of the key by anybody may start the
	// count afresh: the fencing token is the ModifyIndex of the taking.
	LockIndex uint64
	Session   string
}

// OpKind is what an operation of a transaction does.
type OpKind string

// The operations. All of a transaction happen, in order, or none.
const (
	// OpSet writes the value whatever is there, and whoever holds the key's lock:
	// locks are advisory. Writing what is there already, by this or another
	// operation, is no change: ModifyIndex stays, and nobody is woken (but for an
	// OpSet that starts a LockIndex afresh).
	OpSet OpKind = "set"
	// OpCAS writes the value if the key's ModifyIndex is Index; Index 0 means
	// that the key must not exist.
	OpCAS OpKind = "cas"
	// OpDelete removes the key; a missing one is no conflict.
	OpDelete OpKind = "delete"
	// OpDeleteCAS removes the key if its ModifyIndex is Index; a missing one is
	// no conflict.
	OpDeleteCAS OpKind = "delete-cas"
	// OpCheckIndex demands that the key's ModifyIndex is Index.
	OpCheckIndex OpKind = "check-index"
	// OpCheckMissing demands that the key does not exist.
	OpCheckMissing OpKind = "check-missing"
	// OpCheckSession demands that Session holds the key's lock.
	OpCheckSession OpKind = "check-session"
	// OpLock takes the key's lock for Session and writes the value. It
	// conflicts if another session holds the lock, if Session does not exist, or
	// if the key is within a lock delay. Deleting a key frees its lock. Taking a
	// lock that Session holds already writes the value and leaves LockIndex.
	OpLock OpKind = "lock"
	// OpUnlock releases the key's lock, held by Session, and writes the value.
	OpUnlock OpKind = "unlock"
)

// Op is one operation of a transaction.
type Op struct {
	Kind    OpKind
	Key     string
	Value   []byte
	Index   uint64
	Session string
}

// TxnError says which operations of a transaction failed, and why.
type TxnError struct {
	Failures []OpFailure
}

// OpFailure is one operation that failed its check. Its Op has no Value, which
// may be secret.
type OpFailure struct {
	Op     Op
	Reason string
}

// Error names the first failure and counts the others.
func (e *TxnError) Error() string {
	if len(e.Failures) == 0 {
		return "transaction conflict"
	}
	f := e.Failures[0]
	msg := fmt.Sprintf("transaction conflict: %s %s: %s", f.Op.Kind, f.Op.Key, f.Reason)
	if n := len(e.Failures) - 1; n > 0 {
		msg += fmt.Sprintf(" (and %d more)", n)
	}
	return msg
}

// Unwrap makes errors.Is(err, ErrConflict) true.
func (e *TxnError) Unwrap() error { return ErrConflict }

// Behavior is what happens to the keys that a session has locked when the
// session ends.
type Behavior string

// The session behaviours.
const (
	BehaviorRelease Behavior = "release"
	BehaviorDelete  Behavior = "delete"
)

// SessionConfig describes a session to create.
type SessionConfig struct {
	// Name is for people.
	Name string
	// Node is the node that holds the session, a name without slashes.
	Node string
	// TTL ends the session if it is not renewed; 0 never ends it by time.
	// Otherwise it lies within MinSessionTTL and MaxSessionTTL.
	TTL time.Duration
	// LockDelay is how long a lock can't be taken after the session that
	// held it was destroyed or ended; an OpUnlock causes no delay.
	LockDelay time.Duration
	Behavior  Behavior
}

// Session is a session as it stands.
type Session struct {
	ID string
	SessionConfig
	CreateIndex uint64
}

// Store is the contract. All methods are safe for concurrent use, honour the
// context's deadline, and return ErrClosed after Close and ErrUnavailable when
// the store cannot be reached. Keys are paths without a leading slash; what
// CheckKey and CheckPrefix refuse is ErrInvalid or ErrTooLarge everywhere.
type Store interface {
	// Get returns the entry of a key, or ErrNotFound. The value must not be changed.
	Get(ctx context.Context, key string) (Entry, error)
	// List returns the entries under a prefix in key order, and the index to
	// watch from.
	List(ctx context.Context, prefix string) ([]Entry, uint64, error)
	// Txn does all operations or none, and returns the index at which they
	// happened: the ModifyIndex of every key it changed. If it changed nothing,
	// that is an index of before, perhaps 0. A failed check is a
	// *TxnError (ErrConflict); ErrTooLarge and ErrInvalid are as CheckOps says.
	// When it returns nil, the change is durable. After ErrUnavailable or the
	// context's end it may have happened or not. The values are the store's from
	// then on, which may keep them as they are: they must not be changed.
	Txn(ctx context.Context, ops ...Op) (uint64, error)
	// Watch blocks until something under the prefix has changed after the
	// index, then returns what List returns. Changes may be coalesced. Index 0
	// returns at once. It may return without a change if the index is not one
	// that List or Watch returned for the prefix lately.
	//
	// The returned index decreases only if the store was put back (restored from
	// a backup): then what was known of it no longer holds. A store may forget
	// deletions after 15 minutes: who could not watch meanwhile begins at 0 again.
	Watch(ctx context.Context, prefix string, after uint64) ([]Entry, uint64, error)

	// CreateSession starts a session and returns its ID.
	CreateSession(ctx context.Context, cfg SessionConfig) (string, error)
	// RenewSession restarts the session's TTL, or returns ErrSessionNotFound. If
	// it succeeds, the session was alive at some moment after the call.
	RenewSession(ctx context.Context, id string) error
	// DestroySession ends a session as if its TTL had passed: held locks are
	// released (or their keys deleted) and the lock delay begins. A missing
	// session is no error.
	DestroySession(ctx context.Context, id string) error
	// Session returns a session, or ErrSessionNotFound.
	Session(ctx context.Context, id string) (Session, error)

	// Close releases what the store holds and waits for its goroutines.
	Close() error
}
