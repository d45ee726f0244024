package consul

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/synergymesh/meshrun/runtime/state"
)

var verbs = map[state.OpKind]api.KVOp{
	state.OpSet:          api.KVSet,
	state.OpCAS:          api.KVCAS,
	state.OpDelete:       api.KVDelete,
	state.OpDeleteCAS:    api.KVDeleteCAS,
	state.OpCheckIndex:   api.KVCheckIndex,
	state.OpCheckMissing: api.KVCheckNotExists,
	state.OpCheckSession: api.KVCheckSession,
	state.OpLock:         api.KVLock,
	state.OpUnlock:       api.KVUnlock,
}

// probeSuffix ends the key that shows the index of a deletion.
const probeSuffix = "~index"

// Txn does all operations or none. Operations that change nothing take no
// index of their own: the highest of the keys that they name is returned.
func (s *Store) Txn(ctx context.Context, ops ...state.Op) (uint64, error) {
	if err := state.CheckOps(ops); err != nil {
		return 0, err
	}
	var ok bool
	var resp *api.TxnResponse
	err := s.call(ctx, s.opts.Timeout, func(ctx context.Context) (err error) {
		ok, resp, _, err = s.client.Txn().Txn(s.request(ops), consistent(ctx))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("do transaction: %w", err)
	}
	if !ok {
		return 0, s.failed(ctx, ops, resp.Errors)
	}
	return highest(resp.Results), nil
}

// request translates the operations, and adds what is needed to learn the
// index.
func (s *Store) request(ops []state.Op) api.TxnOps {
	out := make(api.TxnOps, 0, len(ops)+2)
	add := func(op *api.KVTxnOp) {
		op.Namespace, op.Partition = s.client.config.Namespace, s.client.config.Partition
		out = append(out, &api.TxnOp{KV: op})
	}
	for _, op := range ops {
		add(&api.KVTxnOp{Verb: verbs[op.Kind], Key: s.opts.Prefix + op.Key, Value: op.Value, Index: op.Index, Session: op.Session})
	}
	if key, ok := probe(ops); ok {
		add(&api.KVTxnOp{Verb: api.KVSet, Key: s.opts.Prefix + key})
		add(&api.KVTxnOp{Verb: api.KVDelete, Key: s.opts.Prefix + key})
	}
	return out
}

// probe returns a key that must be created and deleted at the transaction's
// end, for its index to be seen. Consul tells the index of what is written and
// not of what is deleted, and a read afterwards may see a later one. The key
// stands beside a deleted one, where whoever may delete may also write and
// whoever watches is woken anyhow.
func probe(ops []state.Op) (key string, needed bool) {
	for _, op := range ops {
		switch op.Kind {
		case state.OpDelete, state.OpDeleteCAS:
			key, needed = op.Key+probeSuffix, true
		case state.OpUnlock:
			return "", false // it always writes
		case state.OpCAS:
			if op.Index == 0 {
				return "", false // so does a creation
			}
		}
	}
	return key, needed
}

// highest returns the transaction's index: what it wrote is newer than what it
// only looked at or found written already.
func highest(results api.TxnResults) uint64 {
	var index uint64
	for _, r := range results {
		if r.KV != nil {
			index = max(index, r.KV.ModifyIndex)
		}
	}
	return index
}

// failed returns which operations failed. Consul reports a missing right, too,
// as the failure of an operation.
func (s *Store) failed(ctx context.Context, ops []state.Op, errs api.TxnErrors) error {
	var failures []state.OpFailure
	for _, e := range errs {
		if strings.Contains(e.What, "Permission denied") {
			return fmt.Errorf("do transaction: %w", s.denied(ctx, e.What))
		}
		if e.OpIndex < 0 || e.OpIndex >= len(ops) {
			return fmt.Errorf("do transaction: %w: Consul says of operation %d: %s", state.ErrUnavailable, e.OpIndex, e.What)
		}
		op := ops[e.OpIndex]
		op.Value = nil // an error is printed and logged; values may be secret
		failures = append(failures, state.OpFailure{Op: op, Reason: e.What})
	}
	return &state.TxnError{Failures: failures}
}
