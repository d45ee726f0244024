package agent

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/synergymesh/meshrun/spec"
)

// sealer encrypts and authenticates what a plan is to write, so that a saved
// plan holds no secret and can't be altered on its way to apply. The key never
// leaves the data directory.
type sealer struct {
	aead cipher.AEAD
}

// errSeal: the plan was made by another agent, or altered.
var errSeal = errors.New("the plan was not made by this agent, or was altered: plan again")

// openSealer reads the key in dir, or makes one.
func openSealer(dir string) (*sealer, error) {
	path := filepath.Join(dir, "plan.key")
	key, err := os.ReadFile(path)
	if err != nil || len(key) != 32 {
		// A lost or torn key only makes saved plans stale.
		key = make([]byte, 32)
		rand.Read(key)
		if err := writeFile(path, string(key)); err != nil {
			return nil, err
		}
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make plan cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make plan cipher: %w", err)
	}
	return &sealer{aead: aead}, nil
}

// seal moves the full version of the job plan's record into Sealed and
// leaves a redacted one to be looked at. Everything that an apply acts on is
// bound to the seal.
func (s *sealer) seal(p *spec.JobPlan) error {
	if p.Wanted != nil {
		full, err := json.Marshal(p.Wanted)
		if err != nil {
			return fmt.Errorf("seal plan of job %s: %w", p.Job, err)
		}
		p.Sealed = s.aead.Seal(nil, nil, full, binding(p))
		p.Wanted = p.Wanted.Redacted()
		return nil
	}
	p.Sealed = s.aead.Seal(nil, nil, nil, binding(p))
	return nil
}

// open checks the seal and puts the full record back into Wanted. It returns
// errSeal if the plan isn't one that this agent made.
func (s *sealer) open(p *spec.JobPlan) error {
	full, err := s.aead.Open(nil, nil, p.Sealed, binding(p))
	if err != nil {
		return fmt.Errorf("open plan of job %s: %w", p.Job, errSeal)
	}
	p.Wanted = nil
	if len(full) == 0 {
		return nil
	}
	p.Wanted = new(spec.JobVersion)
	if err := json.Unmarshal(full, p.Wanted); err != nil {
		return fmt.Errorf("open plan of job %s: %w", p.Job, err)
	}
	return nil
}

func binding(p *spec.JobPlan) []byte {
	return fmt.Appendf(nil, "%d|%s|%s|%d|%d|%d|%d", spec.PlanFormat, p.Job, p.Action, p.Base, p.Placed, p.From, p.To)
}
