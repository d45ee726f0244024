package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// encode writes a report. From one that is too large it takes out what is needed
// least, step by step, so that what others decide by gets through.
func encode(seen *spec.Observed) ([]byte, error) {
	data := state.Encode(seen)
	for _, leaveOut := range []func(*spec.Instance){ownOnly, shownOnly, details} {
		if len(data) <= spec.MaxReportBytes {
			return data, nil
		}
		for i := range seen.Instances {
			leaveOut(&seen.Instances[i])
		}
		data = state.Encode(seen)
	}
	if len(data) > spec.MaxReportBytes {
		return nil, fmt.Errorf("encode report of %d instances: %d bytes, of at most %d: %w", len(seen.Instances), len(data), spec.MaxReportBytes, state.ErrTooLarge)
	}
	return data, nil
}

// ownOnly leaves out what only the node itself needs, and the outputs of checks.
func ownOnly(in *spec.Instance) {
	in.Node, in.BootID, in.StartTicks, in.Lease, in.Status, in.ReloadHash, in.Services, in.GuardFindings = "", "", 0, "", "", "", nil, nil
	in.Checks = slices.Clone(in.Checks)
	for k := range in.Checks {
		in.Checks[k].Output = ""
	}
}

// shownOnly leaves out what is only shown to people, and shortens texts.
func shownOnly(in *spec.Instance) {
	in.Ports, in.Alerts, in.DroppedBytes = nil, nil, 0
	shorten(in, 80, 80)
}

// details leaves out all but how the instance is, and which one it is, and words
// but for those that say something by being there.
func details(in *spec.Instance) {
	in.Checks = nil
	shorten(in, 0, 16)
	for _, at := range []*time.Time{&in.Started, &in.ReadyAt, &in.NextStart, &in.Since, &in.HealthSince} {
		*at = at.Truncate(time.Millisecond)
	}
	if in.LastExit != nil {
		in.LastExit.At = in.LastExit.At.Truncate(time.Millisecond)
	}
}

// shorten cuts the texts of an instance, those that say something by being there
// to length telling.
func shorten(in *spec.Instance, plain, telling int) {
	in.Reason, in.RestartCause = cut(in.Reason, plain), cut(in.RestartCause, telling)
	if in.LastExit != nil {
		exit := *in.LastExit
		exit.Cause, exit.Error = cut(exit.Cause, plain), cut(exit.Error, telling)
		in.LastExit = &exit
	}
}

// cut returns at most the first n bytes of a text, without half a character.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && text[n]&0xC0 == 0x80 {
		n--
	}
	return text[:n]
}
