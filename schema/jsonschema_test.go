package schema

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestJSONSchemaIsCurrent(t *testing.T) {
	got, err := JSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "meshrun.schema.json", got)
}

func TestReferenceIsCurrent(t *testing.T) {
	golden(t, "REFERENCE.md", Reference())
}

func TestJSONSchemaResolvesAndDescribesEverything(t *testing.T) {
	raw, err := JSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := json.Unmarshal(raw, &root); err != nil {
		t.Fatal(err)
	}
	defs := root["$defs"].(map[string]any)
	var visit func(path string, v any)
	visit = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				if name, ok := strings.CutPrefix(ref, "#/$defs/"); !ok || defs[name] == nil {
					t.Errorf("%s: %q resolves to nothing", path, ref)
				}
			}
			for k, x := range v {
				visit(path+"/"+k, x)
			}
		case []any:
			for _, x := range v {
				visit(path, x)
			}
		}
	}
	visit("", root)
	for _, path := range []string{"job.process.restart", "job.process.placement.constraint", "variable.validation"} {
		if defs[path] == nil {
			t.Errorf("no definition of %s", path)
		}
	}
}

// TestTableIsWhole demands of every entry what its readers need.
func TestTableIsWhole(t *testing.T) {
	var visit func(path string, b *Block)
	visit = func(path string, b *Block) {
		path += "/" + b.Name
		if b.Doc == "" {
			t.Errorf("%s has no Doc", path)
		}
		if b.Example == "" && b != Root && b.Name != "constraint" && b.Name != "spread" {
			t.Errorf("%s has no Example", path)
		}
		for i := range b.Attrs {
			a := &b.Attrs[i]
			if a.Doc == "" {
				t.Errorf("%s.%s has no Doc", path, a.Name)
			}
			if a.Kind == KindEnum && len(a.Values) == 0 {
				t.Errorf("%s.%s is an enum of nothing", path, a.Name)
			}
			if a.Required && a.Default != "" {
				t.Errorf("%s.%s is required and has a default", path, a.Name)
			}
		}
		for _, n := range b.Blocks {
			visit(path, n)
		}
	}
	visit("", Root)
}
