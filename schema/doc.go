// Package schema is the language: it reads HCL files into spec values, says
// what is wrong with them and where, formats them, and describes itself to
// editors.
//
// One table (see Root) names every block and attribute. Decoding, the JSON
// Schema, the reference and the suggestions for misspelt names all read it.
//
// Reading is three passes: the files are decoded here (syntax, names, types,
// ranges of single values), then spec fills in defaults (Normalize) and checks
// what the whole means (Validate). All errors of all files come at once, in
// the order of files and lines.
package schema
