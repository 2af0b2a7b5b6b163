package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// This file writes JSON as QEMU does: members in the order given, four blanks a
// level, everything but ASCII escaped.

// object is a JSON object with its members in order.
type object []member

type member struct {
	name  string
	value any // string, bool, int, int64, object, []object or []any
}

// writeJSON writes v and a newline.
func writeJSON(w io.Writer, v any) error {
	var b strings.Builder
	appendJSON(&b, v, "\n")
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// appendJSON writes v; newline is the line break with the indentation of the
// line that v begins on.
func appendJSON(b *strings.Builder, v any, newline string) {
	switch v := v.(type) {
	case object:
		appendList(b, "{", "}", newline, len(v), func(i int, newline string) {
			appendString(b, v[i].name)
			b.WriteString(": ")
			appendJSON(b, v[i].value, newline)
		})
	case []object:
		appendList(b, "[", "]", newline, len(v), func(i int, newline string) { appendJSON(b, v[i], newline) })
	case []any:
		appendList(b, "[", "]", newline, len(v), func(i int, newline string) { appendJSON(b, v[i], newline) })
	case string:
		appendString(b, v)
	default:
		fmt.Fprint(b, v)
	}
}

func appendList(b *strings.Builder, open, end, newline string, n int, item func(i int, newline string)) {
	b.WriteString(open)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(newline + "    ")
		item(i, newline+"    ")
	}
	b.WriteString(newline + end)
}

var escapes = map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}

func appendString(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		short, special := escapes[r]
		switch {
		case special:
			b.WriteString(short)
		case ' ' <= r && r < 0x7f:
			b.WriteRune(r)
		default:
			for _, unit := range utf16.AppendRune(nil, r) {
				fmt.Fprintf(b, `\u%04X`, unit)
			}
		}
	}
	b.WriteByte('"')
}
