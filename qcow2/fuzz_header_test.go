package qcow2

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/diskimg/diskimg/block"
)

// Whatever a header holds, it is refused or kept: what is parsed from what was
// encoded is what was parsed before.
func FuzzHeader(f *testing.F) {
	for _, bits := range []uint32{9, 12, 16} {
		h := sampleHeader(bits)
		f.Add(encoded(f, h)[:400], false)
		h.version, h.length, h.unknown = 2, v2HeaderLength, nil
		f.Add(encoded(f, h)[:400], true)
		h.extensions, h.backingName = nil, ""
		f.Add(encoded(f, h)[:200], false)
	}
	f.Fuzz(func(t *testing.T, b []byte, more bool) {
		h, err := parseHeader(b, more)
		if err != nil {
			known(t, err)
			return
		}
		if err := h.validate(); err != nil {
			known(t, err)
		}
		first, err := h.encode()
		if errors.Is(err, block.ErrNoSpace) {
			return // no end marker, or the name elsewhere
		}
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseHeader(first, false)
		if err != nil {
			t.Fatalf("what was encoded can't be parsed: %v", err)
		}
		if h.backingName == "" {
			h.backingOffset = 0
		}
		if !reflect.DeepEqual(again, h) {
			t.Fatalf("header was\n%+v\nand comes back as\n%+v", h, again)
		}
		if second := encoded(t, again); !bytes.Equal(first, second) {
			t.Fatal("the bytes change from parsing and encoding")
		}
	})
}

// known fails unless an error is one of those that a caller can tell apart.
func known(t *testing.T, err error) {
	t.Helper()
	for _, kind := range []error{block.ErrFormat, block.ErrCorrupt, block.ErrUnsupported, errMoreHeader} {
		if errors.Is(err, kind) {
			return
		}
	}
	t.Fatalf("%v is of no kind", err)
}
