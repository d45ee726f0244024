package spec

import (
	"bytes"
	"encoding/json"
)

// maxIndented is the largest value that is stored with indentation, which
// doubles it; nobody reads larger ones by eye.
const maxIndented = 64 << 10

// Encode writes a value as it is stored: JSON, indented to be read by people
// unless it is large.
func Encode(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil || len(data) > maxIndented {
		return data, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
