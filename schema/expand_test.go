package schema

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

var onNode = spec.Runtime{
	ShardIndex: 3, ShardCount: 8, NodeName: "node-a",
	NodeLabels: map[string]string{"zone": "north", "a": "A"},
	Ports:      map[string]int{"http": 8080},
}

// expand loads a process with the given command element, and some names to
// refer to, and expands it on the node.
func expand(t testing.TB, element string) (string, error) {
	t.Helper()
	cfg, diags := loadText(t, `
variable "name" { default = "synergy" }
locals {
  names = ["a", "b"]
  tag   = "$"
}
job "web" {
  process "server" {
    command = ["x", `+element+`]
    port "http" {}
  }
}
`)
	if diags.HasErrors() {
		t.Fatalf("%s:\n%s", element, text(diags))
	}
	return Expand(cfg.Jobs[0].Job.Processes[0].Command[1], onNode)
}

func TestExpandGivesWhatTheExpressionMeans(t *testing.T) {
	tests := map[string]string{
		`shard.index`:                                              "3",
		`"${shard.index}/${shard.count}"`:                          "3/8",
		`"${var.name}-${node.name}"`:                               "synergy-node-a",
		`"$${shard.index}"`:                                        "${shard.index}",
		`"${local.tag}${shard.index}"`:                             "$3",
		`"${local.tag}{${shard.index}}"`:                           "${3}",
		`"100%${port.http}"`:                                       "100%8080",
		`"%%{if}${port.http}"`:                                     "%{if}8080",
		`upper("${var.name}.${node.name}")`:                        "SYNERGY.NODE-A",
		`port.http + 1`:                                            "8081",
		`-port.http`:                                               "-8080",
		`(port.http - 80) * 2 - 10 - 5`:                            "15985",
		`shard.index % 2 == 0 ? "even" : "odd"`:                    "odd",
		`!(shard.index > 2)`:                                       "false",
		`node.labels["zone"]`:                                      "north",
		`node.labels[local.names[0]]`:                              "A",
		`node.labels.zone`:                                         "north",
		`lookup(node.labels, "rack", "none")`:                      "none",
		`join(",", [for n in local.names : "${n}${shard.index}"])`: "a3,b3",
		`join(",", [for shard in local.names : "${shard}@${node.name}"])`:       "a@node-a,b@node-a",
		`join(",", [for i, n in local.names : n if i != shard.index - 3])`:      "b",
		`jsonencode({ for n in local.names : n => port.http })`:                 `{"a":8080,"b":8080}`,
		`jsonencode({ for n in local.names : "k" => "${n}${shard.index}"... })`: `{"k":["a3","b3"]}`,
		`"%{for n in local.names}${n}${port.http};%{endfor}"`:                   "a8080;b8080;",
		`"%{if shard.index == 3}yes%{else}no%{endif}"`:                          "yes",
		`jsonencode([{ p = port.http }, { p = 1 }][*].p)`:                       "[8080,1]",
		`jsonencode([for n in [1, 2] : { p = [port.http, n] }].*.p[1])`:         "[8080,2]",
		`"line\n\"quoted\" \\ ${node.name}"`:                                    "line\n\"quoted\" \\ node-a",
		`tostring(true)`:                                                        "true",
		`format("%s-%03d", var.name, shard.index)`:                              "synergy-003",
		`max([1, shard.index]...)`:                                              "3",
		`contains(toset(local.names), node.name)`:                               "false",
	}
	for element, want := range tests {
		got, err := expand(t, element)
		if err != nil || got != want {
			t.Errorf("%s gives %q, %v; want %q", element, got, err, want)
		}
	}
}

func TestExpandOfLiteralIsItsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.StringMatching(`[$%{}a ~"\\]{0,12}`)).Draw(t, "text")
		got, err := Expand(spec.Literal(s), onNode)
		if err != nil || got != s {
			t.Fatalf("Expand(Literal(%q)) = %q, %v", s, got, err)
		}
	})
}

// TestTextAroundReferencesStaysAsItIs puts texts that are hard to escape around
// a reference: neither may change the other.
func TestTextAroundReferencesStaysAsItIs(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		hard := rapid.StringMatching(`[$%{}a ~"\\n]{0,8}`)
		before, after := hard.Draw(t, "before"), hard.Draw(t, "after")
		quote := func(s string) string {
			q := fmt.Sprintf("%q", s)
			q = strings.ReplaceAll(q, "${", "$${")
			q = strings.ReplaceAll(q, "%{", "%%{")
			return q
		}
		// The texts come from expressions, so that how HCL joins them with the
		// reference cannot matter on the way in.
		element := fmt.Sprintf(`"${%s}${port.http}${%s}"`, quote(before), quote(after))
		got, err := expand(outer, element)
		if want := before + "8080" + after; err != nil || got != want {
			t.Fatalf("%s gives %q, %v; want %q", element, got, err, want)
		}
	})
}

func TestExpandErrorsNameReferencesAndNoText(t *testing.T) {
	for _, tmpl := range []spec.Template{
		"s3cret${port.admin}", "s3cret${nothing.x}", "s3cret${tonumber(\"s3cret-${shard.index}\")}",
		"s3cret${", "s3cret${node.labels}", spec.Template("s3cret" + strings.Repeat("${[", 1000)),
	} {
		got, err := Expand(tmpl, onNode)
		if !errors.Is(err, ErrExpand) {
			t.Errorf("%.40q gives %q, %v; want ErrExpand", tmpl, got, err)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error shows the template's text: %v", err)
		}
	}
	if _, err := Expand("${port.admin}", onNode); err == nil || !strings.Contains(err.Error(), "port.admin") {
		t.Errorf("the error does not name the reference: %v", err)
	}
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"", "a", "$${", "${", "%{if", "$$$${x}", "a$", "\x00\xff", "${port.http}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Expand(spec.Literal(s), onNode)
		if err != nil || got != s {
			t.Fatalf("Expand(Literal(%q)) = %q, %v", s, got, err)
		}
		// Whatever it is, it must not panic.
		_, _ = Expand(spec.Template(s), onNode)
	})
}
