package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/diskimg/diskimg/internal/qjson"
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
			b.WriteString(qjson.Quote(v[i].name))
			b.WriteString(": ")
			appendJSON(b, v[i].value, newline)
		})
	case []object:
		appendList(b, "[", "]", newline, len(v), func(i int, newline string) { appendJSON(b, v[i], newline) })
	case []any:
		appendList(b, "[", "]", newline, len(v), func(i int, newline string) { appendJSON(b, v[i], newline) })
	case string:
		b.WriteString(qjson.Quote(v))
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
