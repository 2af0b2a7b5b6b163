// Package layers holds the rules on which package may import which, and on what
// library code may not do, as a test. It has no code of its own: whoever breaks
// a rule is told by go test ./internal/layers, with the file, the line and the
// rule.
package layers
