package spec

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Engine is an engine that meshrun did not start and that registered itself:
// the value of engines/<name>.
type Engine struct {
	Name string `json:"name"`
	// Kind says what it is, in the engine's own words: "renderer".
	Kind string `json:"kind"`
	// Address is where it answers, in whatever form its users understand.
	Address string `json:"address,omitempty"`
	// TTL is how long it is known after its last heartbeat.
	TTL          Duration `json:"ttl"`
	Capabilities []string `json:"capabilities,omitempty"`
	// Registered is when it was first registered; what comes in is overwritten.
	Registered time.Time `json:"registered,omitzero"`
}

// Bounds of a registered engine.
const (
	MinEngineTTL     = Duration(10 * time.Second)
	MaxEngineTTL     = Duration(24 * time.Hour)
	DefaultEngineTTL = Duration(30 * time.Second)
	maxEngineText    = 256
	maxCapabilities  = 64
)

// Normalize fills in what was left out.
func (e *Engine) Normalize() {
	if e.TTL == 0 {
		e.TTL = DefaultEngineTTL
	}
}

// Validate returns what is wrong with the record.
func (e *Engine) Validate() error {
	if e.Name == "" || strings.ContainsFunc(e.Name, func(r rune) bool {
		return r == '/' || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}) {
		return fmt.Errorf("check engine: %q is no name: write one without blanks and slashes", e.Name)
	}
	if e.Kind == "" {
		return fmt.Errorf("check engine %s: it has no kind", e.Name)
	}
	if e.TTL < MinEngineTTL || e.TTL > MaxEngineTTL {
		return fmt.Errorf("check engine %s: a ttl of %v is not within %v and %v", e.Name, e.TTL, MinEngineTTL, MaxEngineTTL)
	}
	if len(e.Capabilities) > maxCapabilities {
		return fmt.Errorf("check engine %s: it has %d capabilities, of at most %d", e.Name, len(e.Capabilities), maxCapabilities)
	}
	for _, text := range append([]string{e.Name, e.Kind, e.Address}, e.Capabilities...) {
		if len(text) > maxEngineText || strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("check engine %s: %.40q is longer than %d bytes, or not one line of text", e.Name, text, maxEngineText)
		}
	}
	return nil
}
