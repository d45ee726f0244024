package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// object is a JSON object; encoding/json sorts its keys.
type object map[string]any

// JSONSchema returns the JSON Schema (draft 2020-12) of the language in HCL's
// JSON form, made from the table: blocks are objects, keyed by their label,
// and every value may be a text with "${…}" in it.
func JSONSchema() ([]byte, error) {
	defs := object{
		"expression": object{
			"description": "A text with an HCL expression or template in it.",
			"type":        "string",
			"pattern":     `[$%]\{`,
		},
		"duration": object{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`, "examples": []string{"500ms", "10s", "1h30m"}},
		"size":     object{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)? ?([KMG]i?B|B)$`, "examples": []string{"512MiB", "10MB"}},
		"signal":   object{"type": "string", "pattern": `^(?i:SIG)?[A-Za-z0-9+]+$`, "examples": []string{"SIGTERM", "SIGHUP"}},
		"amount":   object{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)? ?(%|[KMG]i?B|B)$`, "examples": []string{"95%", "512MiB"}},
	}
	for _, b := range Root.Blocks {
		define(defs, "", b)
	}
	root := blockObject(Root, "")
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = "https://github.com/synergymesh/meshrun/schema/meshrun.schema.json"
	root["title"] = "meshrun job file"
	root["$defs"] = defs
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		return nil, fmt.Errorf("write JSON Schema: %w", err)
	}
	return b.Bytes(), nil
}

// define adds a block, and all within it, to the definitions.
func define(defs object, path string, b *Block) {
	name := definitionName(path, b)
	defs[name] = blockObject(b, name)
	for _, n := range b.Blocks {
		define(defs, name, n)
	}
}

// definitionName is the block's name with those of the blocks around it.
func definitionName(path string, b *Block) string {
	return strings.TrimPrefix(path+"."+b.Name, ".")
}

// blockObject describes what is in a block.
func blockObject(b *Block, name string) object {
	properties := object{}
	var required []string
	for i := range b.Attrs {
		a := &b.Attrs[i]
		properties[a.Name] = attrObject(a)
		if a.Required {
			required = append(required, a.Name)
		}
	}
	for _, n := range b.Blocks {
		properties[n.Name] = useOf(n, definitionName(name, n))
	}
	if len(b.Blocks) > 0 {
		properties["dynamic"] = object{"type": "object", "description": "Blocks that are made one for each element of for_each, by their type."}
	}
	o := object{"type": "object", "additionalProperties": b.Open}
	if len(properties) > 0 {
		o["properties"] = properties
	}
	if len(required) > 0 {
		o["required"] = required
	}
	if doc := blockDoc(b); doc != "" {
		o["description"] = doc
	}
	return o
}

// blockDoc is the block's description, with what it lacks.
func blockDoc(b *Block) string {
	if b.Needs == "" {
		return b.Doc
	}
	return b.Doc + " Not available yet: it " + b.Needs + "."
}

// useOf describes how a block is used within another: by its label, if it has
// one, and in a list, if there can be several.
func useOf(b *Block, name string) object {
	one := object{"$ref": "#/$defs/" + name}
	if b.Label != "" {
		labelled := object{"type": "object", "additionalProperties": one, "description": "By " + b.Label + "."}
		if len(b.LabelValues) > 0 {
			labelled["propertyNames"] = object{"enum": b.LabelValues}
		}
		return labelled
	}
	if !b.Repeat {
		return one
	}
	return object{"anyOf": []object{one, {"type": "array", "items": one}}}
}

// attrObject describes the value of an attribute.
func attrObject(a *Attr) object {
	expression := object{"$ref": "#/$defs/expression"}
	var value object
	switch a.Kind {
	case KindString, KindTemplate, KindType:
		value = object{"type": "string"}
		expression = nil
	case KindBool:
		value = object{"type": "boolean"}
	case KindInt, KindFloat:
		value = object{"type": "integer", "minimum": a.Min}
		if a.Kind == KindFloat {
			value["type"] = "number"
		}
		if a.Max != 0 {
			value["maximum"] = a.Max
		}
	case KindDuration, KindSize, KindSignal:
		value = object{"$ref": "#/$defs/" + string(a.Kind)}
	case KindAmount:
		value = object{"anyOf": []object{{"$ref": "#/$defs/" + string(a.Kind)}, {"type": "integer", "minimum": 0}}}
	case KindEnum:
		value = object{"enum": a.Values}
	case KindTemplateList, KindStringList:
		value = object{"type": "array", "items": object{"type": []string{"string", "number", "boolean"}}}
	case KindTemplateMap, KindStringMap:
		value = object{"type": "object", "additionalProperties": object{"type": []string{"string", "number", "boolean", "null"}}}
	case KindAny:
		value, expression = object{}, nil
	}
	if expression != nil {
		value = object{"anyOf": []object{value, expression}}
	}
	value["description"] = a.Doc
	if a.Default != "" {
		value["default"] = defaultValue(a)
	}
	return value
}

// defaultValue is the default as JSON has it.
func defaultValue(a *Attr) any {
	switch a.Kind {
	case KindBool:
		return a.Default == "true"
	case KindInt, KindFloat:
		return json.Number(a.Default)
	default:
		return a.Default
	}
}
