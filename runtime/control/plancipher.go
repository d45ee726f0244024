package control

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/synergymesh/meshrun/spec"
)

// planCipher encrypts and authenticates what a plan is to write, so that a saved
// plan holds no secret and can't be altered on its way to apply. The key never
// leaves the data directory.
type planCipher struct {
	aead cipher.AEAD
}

// errForeignPlan: the plan was made by another agent, or altered.
var errForeignPlan = errors.New("the plan was not made by this agent, or was altered: plan again")

// openPlanCipher reads the key in dir, or makes one.
func openPlanCipher(dir string) (*planCipher, error) {
	path := filepath.Join(dir, "plan.key")
	key, err := os.ReadFile(path)
	if err != nil || len(key) != 32 {
		// A lost or torn key only makes saved plans stale.
		key = make([]byte, 32)
		rand.Read(key)
		if err := renameio.WriteFile(path, key, 0o600); err != nil {
			return nil, fmt.Errorf("write plan key: %w", err)
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
	return &planCipher{aead: aead}, nil
}

// encrypt moves the full version of the job plan's record into Sealed and leaves
// a redacted one for people. It authenticates everything that an apply acts on.
func (s *planCipher) encrypt(p *spec.JobPlan) error {
	if p.Wanted != nil {
		full, err := json.Marshal(p.Wanted)
		if err != nil {
			return fmt.Errorf("encrypt plan of job %s: %w", p.Job, err)
		}
		p.Sealed = s.aead.Seal(nil, nil, full, binding(p))
		p.Wanted = p.Wanted.Redacted()
		return nil
	}
	p.Sealed = s.aead.Seal(nil, nil, nil, binding(p))
	return nil
}

// decrypt puts the full record back into Wanted. It returns
// errForeignPlan if the plan isn't one that this agent made.
func (s *planCipher) decrypt(p *spec.JobPlan) error {
	full, err := s.aead.Open(nil, nil, p.Sealed, binding(p))
	if err != nil {
		return fmt.Errorf("decrypt plan of job %s: %w", p.Job, errForeignPlan)
	}
	p.Wanted = nil
	if len(full) == 0 {
		return nil
	}
	p.Wanted = new(spec.JobVersion)
	if err := json.Unmarshal(full, p.Wanted); err != nil {
		return fmt.Errorf("decrypt plan of job %s: %w", p.Job, err)
	}
	return nil
}

func binding(p *spec.JobPlan) []byte {
	return fmt.Appendf(nil, "%d|%s|%s|%d|%d|%d|%d", spec.PlanFormat, p.Job, p.Action, p.Base, p.Placed, p.From, p.To)
}
