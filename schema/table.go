package schema

import "github.com/hashicorp/hcl/v2"

// Kind is the type of an attribute's value as the user writes it.
type Kind string

// The kinds of attributes.
const (
	KindString   Kind = "string"
	KindBool     Kind = "bool"
	KindInt      Kind = "int"
	KindFloat    Kind = "float"
	KindDuration Kind = "duration"
	KindSize     Kind = "size"
	KindSignal   Kind = "signal"
	KindEnum     Kind = "enum"
	// KindAmount is what a guard compares with: a percentage, a size or a number.
	KindAmount Kind = "amount"
	// KindTemplate is a string that may refer to what only the node knows.
	KindTemplate     Kind = "template"
	KindTemplateList Kind = "list of templates"
	KindTemplateMap  Kind = "map of templates"
	KindStringList   Kind = "list of strings"
	KindStringMap    Kind = "map of strings"
	// KindType is a type expression: string, number, list(string), ….
	KindType Kind = "type"
	// KindAny is any value.
	KindAny Kind = "any"
)

// noun is what a value of the kind is called in messages.
func (k Kind) noun() string {
	switch k {
	case KindString, KindTemplate:
		return "text"
	case KindBool:
		return "true or false"
	case KindInt:
		return "whole number"
	case KindFloat:
		return "number"
	case KindSignal:
		return "signal's name"
	case KindEnum:
		return "word"
	case KindTemplateList, KindStringList:
		return "list of texts"
	case KindTemplateMap, KindStringMap:
		return "map of texts"
	default:
		return string(k)
	}
}

// Attr describes one attribute of a block.
type Attr struct {
	Name     string
	Kind     Kind
	Required bool
	// Default is what an absent attribute means, as the user would write it;
	// empty if absence is a meaning of its own.
	Default string
	// Values are the words that a KindEnum allows.
	Values []string
	// Min and Max bound numbers; Max 0 is no bound.
	Min, Max float64
	Doc      string
}

// Runtime reports whether the attribute may refer to what only the node
// knows: shard.index, shard.count, node.name, node.labels and port.<name>.
func (a *Attr) Runtime() bool {
	return a.Kind == KindTemplate || a.Kind == KindTemplateList || a.Kind == KindTemplateMap
}

// Block describes one type of block.
type Block struct {
	Name string
	// Label says what the block's label is; empty if it has none.
	Label string
	// LabelValues are the labels that are allowed; empty allows any name.
	LabelValues []string
	// Repeat is set if the block may appear more than once (with another
	// label, if it has one).
	Repeat bool
	// Open is set if the block takes attributes of any name.
	Open   bool
	Attrs  []Attr
	Blocks []*Block
	// Needs says what this version lacks to act on the block, and what works
	// instead; empty if the block works.
	Needs string
	Doc   string
	// Example is a complete use of the block.
	Example string

	// schema is Attrs and Blocks in the form that hcl reads, made once.
	schema *hcl.BodySchema
}

// Attr returns the attribute of that name, or nil.
func (b *Block) Attr(name string) *Attr {
	for i := range b.Attrs {
		if b.Attrs[i].Name == name {
			return &b.Attrs[i]
		}
	}
	return nil
}

// Block returns the nested block of that name, or nil.
func (b *Block) Block(name string) *Block {
	for _, n := range b.Blocks {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// bodySchema returns what hcl shall expect in the block. Attributes are never
// required there: decoding says what is missing, and what for.
func (b *Block) bodySchema() *hcl.BodySchema {
	s := &hcl.BodySchema{}
	for _, a := range b.Attrs {
		s.Attributes = append(s.Attributes, hcl.AttributeSchema{Name: a.Name})
	}
	for _, n := range b.Blocks {
		header := hcl.BlockHeaderSchema{Type: n.Name}
		if n.Label != "" {
			header.LabelNames = []string{n.Label}
		}
		s.Blocks = append(s.Blocks, header)
	}
	return s
}

// prepare makes the hcl schemas of a block and of all within it.
func (b *Block) prepare() *Block {
	b.schema = b.bodySchema()
	for _, n := range b.Blocks {
		n.prepare()
	}
	return b
}

// Root is the table of the language: the pseudo-block that a file is. It is
// made once and must not be changed.
var Root = (&Block{
	Name: "",
	Doc:  "A file holds jobs, and the variables and locals that they use. The files of one directory belong together.",
	Blocks: []*Block{
		variableBlock,
		localsBlock,
		jobBlock,
	},
}).prepare()

var variableBlock = &Block{
	Name: "variable", Label: "name", Repeat: true,
	Doc: "A value that is given from outside: by `-var name=value`, by `-var-file`, by the environment variable MESHRUN_VAR_name, or by its default, the first of these that is there.",
	Attrs: []Attr{
		{Name: "type", Kind: KindType, Default: "any", Doc: "Type of the value: `string`, `number`, `bool`, `list(string)`, `map(number)`, `object({…})`, `any`."},
		{Name: "default", Kind: KindAny, Doc: "Value if none is given. Without it, a value must be given."},
		{Name: "description", Kind: KindString, Doc: "What the variable is for."},
		{Name: "sensitive", Kind: KindBool, Default: "false", Doc: "Never show the value, or what is made of it, in plans, logs and messages."},
	},
	Blocks: []*Block{{
		Name: "validation", Repeat: true,
		Doc: "A rule that the value must keep.",
		Attrs: []Attr{
			{Name: "condition", Kind: KindAny, Required: true, Doc: "Expression over `var.<name>` that must be true."},
			{Name: "error_message", Kind: KindString, Required: true, Doc: "What to tell the user otherwise."},
		},
		Example: `variable "workers" {
  type    = number
  default = 4
  validation {
    condition     = var.workers > 0
    error_message = "At least one worker is needed."
  }
}`,
	}},
	Example: `variable "workers" {
  type        = number
  default     = 4
  description = "How many ingest shards"
}`,
}

var localsBlock = &Block{
	Name: "locals", Repeat: true, Open: true,
	Doc: "Names for values, used as `local.<name>`. They may refer to variables and to one another in any order.",
	Example: `locals {
  data = "/var/lib/synergy"
  logs = "${local.data}/logs"
}`,
}

var jobBlock = &Block{
	Name: "job", Label: "name", Repeat: true,
	Doc: "A group of processes that are planned, applied, versioned and rolled back together.",
	Attrs: []Attr{
		{Name: "labels", Kind: KindStringMap, Doc: "Labels of the job, for people and tools."},
	},
	Blocks: []*Block{processBlock},
	Example: `job "web" {
  labels = { team = "platform" }
  process "server" {
    command = ["./server"]
  }
}`,
}
