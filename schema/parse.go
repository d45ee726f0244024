package schema

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// The bounds of what is read. hcl's parser and evaluator are recursive, and Go
// cannot recover from an exhausted stack, so how deep a file goes is checked
// before it is parsed.
const (
	// MaxFile is the largest HCL file in bytes.
	MaxFile = 4 << 20
	// MaxNesting is how deep brackets, quotes and blocks may be nested.
	MaxNesting = 100
	// MaxOperators is how many operators one expression may chain.
	MaxOperators = 500
)

// parseFile parses a file of HCL within the bounds. The file is never nil.
func parseFile(src []byte, name string) (*hcl.File, hcl.Diagnostics) {
	if d := checkBounds(src, name); d != nil {
		return emptyFile(src, name), hcl.Diagnostics{d}
	}
	f, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	if f == nil {
		f = emptyFile(src, name)
	}
	return f, diags
}

// emptyFile stands for a file that was not parsed.
func emptyFile(src []byte, name string) *hcl.File {
	start := hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}
	return &hcl.File{Body: &hclsyntax.Body{SrcRange: start, EndRange: start}, Bytes: src}
}

// parseExpression parses one expression within the bounds.
func parseExpression(src []byte, name string) (hclsyntax.Expression, hcl.Diagnostics) {
	if d := checkBounds(src, name); d != nil {
		return nil, hcl.Diagnostics{d}
	}
	return hclsyntax.ParseExpression(src, name, hcl.InitialPos)
}

// checkBounds returns what is wrong if a source is too large or too deep to be
// parsed safely.
func checkBounds(src []byte, name string) *hcl.Diagnostic {
	if len(src) > MaxFile {
		r := hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}
		return &hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  "File too large",
			Detail:   fmt.Sprintf("The file has %d bytes; at most %d are read. Split it into several files of the same directory.", len(src), MaxFile),
			Subject:  &r,
		}
	}
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos)
	return checkDepth(tokens)
}

// openBracket is a bracket, brace, quote or block that is not closed yet.
type openBracket struct {
	// operators counts what chains expressions directly within it, since the
	// last thing that ends an expression there.
	operators int
	// lines is set where the end of a line ends an expression.
	lines bool
}

// checkDepth bounds the recursion that parsing and evaluating the tokens takes.
func checkDepth(tokens hclsyntax.Tokens) *hcl.Diagnostic {
	open := make([]openBracket, 1, MaxNesting+1)
	open[0].lines = true
	for i := range tokens {
		top := &open[len(open)-1]
		switch t := tokens[i].Type; t {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote,
			hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			if t != hclsyntax.TokenTemplateInterp {
				top.operators++
			}
			open = append(open, openBracket{lines: t == hclsyntax.TokenOBrace})
			if len(open) > MaxNesting {
				return tooComplex(tokens[i].Range, fmt.Sprintf("Brackets, quotes and blocks are nested more than %d deep here. Give the inner parts names in a locals block.", MaxNesting))
			}
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote,
			hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			if len(open) > 1 {
				open = open[:len(open)-1]
			}
		case hclsyntax.TokenComma, hclsyntax.TokenEqual:
			top.operators = 0
		case hclsyntax.TokenNewline:
			if top.lines {
				top.operators = 0
			}
		case hclsyntax.TokenIdent, hclsyntax.TokenNumberLit, hclsyntax.TokenQuotedLit,
			hclsyntax.TokenStringLit, hclsyntax.TokenComment:
		default:
			top.operators++
		}
		if top.operators > MaxOperators {
			return tooComplex(tokens[i].Range, fmt.Sprintf("This expression chains more than %d operators. Give parts of it names in a locals block.", MaxOperators))
		}
	}
	return nil
}

func tooComplex(r hcl.Range, detail string) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Expression too complex", Detail: detail, Subject: &r}
}
