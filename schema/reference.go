package schema

import (
	"fmt"
	"strings"
)

// Reference returns the reference of the language as Markdown, made from the
// table, with an example of each block.
func Reference() []byte {
	var b strings.Builder
	b.WriteString("# The language\n\n")
	b.WriteString("Made from the block table in `schema/`; `go test ./schema -update` writes it anew.\n\n")
	b.WriteString(Root.Doc + "\n\n")
	b.WriteString("HCL allows one attribute in a block on one line (`watchdog { timeout = \"30s\" }`); a block with more has each on a line of its own.\n\n")
	for _, block := range Root.Blocks {
		referenceBlock(&b, "", block)
	}
	referenceNames(&b)
	return []byte(b.String())
}

// referenceBlock describes a block and those within it.
func referenceBlock(b *strings.Builder, around string, block *Block) {
	name := strings.TrimPrefix(around+" › "+block.Name, " › ")
	fmt.Fprintf(b, "## %s\n\n%s\n\n", name, block.Doc)
	if block.Needs != "" {
		fmt.Fprintf(b, "**Not available yet:** it %s.\n\n", block.Needs)
	}
	fmt.Fprintf(b, "```hcl\n%s { … }\n```\n\n", header(block))
	if block.Label != "" {
		fmt.Fprintf(b, "Its label is the %s", block.Label)
		if len(block.LabelValues) > 0 {
			fmt.Fprintf(b, ": %s", list(block.LabelValues, "or"))
		}
		b.WriteString(". ")
	}
	switch {
	case block.Repeat && block.Label != "":
		b.WriteString("May be repeated, with different labels.\n\n")
	case block.Repeat:
		b.WriteString("May be repeated.\n\n")
	default:
		b.WriteString("May appear once.\n\n")
	}
	referenceAttrs(b, block)
	if block.Example != "" {
		fmt.Fprintf(b, "```hcl\n%s\n```\n\n", block.Example)
	}
	for _, n := range block.Blocks {
		referenceBlock(b, name, n)
	}
}

// header is the first line of a block.
func header(block *Block) string {
	if block.Label == "" {
		return block.Name
	}
	return fmt.Sprintf("%s %q", block.Name, "<"+block.Label+">")
}

func referenceAttrs(b *strings.Builder, block *Block) {
	if len(block.Attrs) == 0 {
		return
	}
	b.WriteString("| attribute | type | default | |\n|---|---|---|---|\n")
	for i := range block.Attrs {
		a := &block.Attrs[i]
		def := ""
		switch {
		case a.Required:
			def = "required"
		case a.Default != "":
			def = "`" + a.Default + "`"
		}
		kind := string(a.Kind)
		if a.Kind == KindEnum {
			kind = "one of " + list(a.Values, "or")
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", a.Name, kind, def, strings.ReplaceAll(a.Doc, "|", `\|`))
	}
	b.WriteString("\n")
}

// referenceNames describes what expressions can use.
func referenceNames(b *strings.Builder) {
	b.WriteString("## References\n\n| reference | stands for |\n|---|---|\n" +
		"| `var.<name>` | a variable |\n" +
		"| `local.<name>` | a local |\n" +
		"| `shard.index`, `shard.count` | the instance's number, from 0, and how many there are |\n" +
		"| `node.name`, `node.labels` | the node's name, and its labels by name |\n" +
		"| `port.<name>` | the number of a port that the process declares |\n\n" +
		"Those of shard, node and port are known only on the node. They are allowed in attributes of the template types, " +
		"also within expressions, and are checked when the files are read.\n\n")
	b.WriteString("## Functions\n\n")
	names := Functions()
	for i, n := range names {
		names[i] = "`" + n + "`"
	}
	fmt.Fprintf(b, "%s.\n\n", strings.Join(names, ", "))
	b.WriteString("`file(path)` is the text of a file, relative to the directory of the HCL file; a change of it is a change of the job. " +
		"`env(name, default)` is an environment variable of the command that reads the files. " +
		"Neither may depend on what only the node knows.\n\n")
	b.WriteString("## Dynamic blocks\n\n" +
		"`dynamic \"<block>\"` makes one block for each element of `for_each`:\n\n" +
		"```hcl\n" + dynamicExample + "\n```\n")
}

const dynamicExample = `job "web" {
  process "server" {
    command = ["./server", "--port", port.http, "--admin", port.admin]
    dynamic "port" {
      for_each = { http = 8080, admin = 9090 }
      labels   = [port.key]
      content {
        static = port.value
      }
    }
  }
}`
