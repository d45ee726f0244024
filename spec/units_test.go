package spec

import (
	"testing"

	"pgregory.net/rapid"
)

// dollars draws strings that are hard to escape.
func dollars() *rapid.Generator[string] {
	return rapid.OneOf(rapid.String(), rapid.StringMatching(`[$%{}a ~"\\\n]{0,12}`))
}

func TestLiteralTemplateStandsForItsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := dollars().Draw(t, "text")
		tmpl := Literal(s)
		if !tmpl.IsLiteral() {
			t.Fatalf("Literal(%q) = %q is not literal", s, tmpl)
		}
		if got := tmpl.Text(); got != s {
			t.Fatalf("Literal(%q) = %q stands for %q", s, tmpl, got)
		}
	})
}

func TestTemplateIsLiteral(t *testing.T) {
	tests := map[Template]struct {
		literal bool
		text    string
	}{
		"":                 {true, ""},
		"plain {} text":    {true, "plain {} text"},
		"$HOME":            {true, "$HOME"},
		"$${x}":            {true, "${x}"},
		"$$${x}":           {true, "$${x}"},
		"%%{ if x }":       {true, "%{ if x }"},
		"--port=${port.a}": {false, "--port=${port.a}"},
		"%{ if true }a":    {false, "%{ if true }a"},
		"$${a}${port.b}":   {false, "$${a}${port.b}"},
	}
	for tmpl, want := range tests {
		if got := tmpl.IsLiteral(); got != want.literal {
			t.Errorf("Template(%q).IsLiteral() = %v", tmpl, got)
		}
		if got := tmpl.Text(); got != want.text {
			t.Errorf("Template(%q).Text() = %q, want %q", tmpl, got, want.text)
		}
	}
}

func TestParseSizeRefusesWhatIsNoSize(t *testing.T) {
	for _, text := range []string{"", "10", "MiB", "-1MiB", "NaNMiB", "InfMiB", "1e300GiB", "10 megs"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d", text, int64(got))
		}
	}
}
