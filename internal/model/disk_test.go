package model

import (
	"bytes"
	"testing"
)

func TestDiscardLeavesOpen(t *testing.T) {
	old := bytes.Repeat([]byte{7}, 2048)
	zero := make([]byte, 2048)
	fresh := func() *Disk {
		d := NewDisk(2048, old)
		d.Discard(512, 1024, 1)
		return d
	}
	with := func(p []byte, off, n int) []byte { // old with n bytes of p at off
		q := bytes.Clone(old)
		copy(q[off:off+n], p)
		return q
	}
	for _, c := range []struct {
		name string
		got  []byte
		ok   bool
	}{
		{"as before", old, true},
		{"all zero", with(zero, 512, 1024), true},
		{"one sector zero", with(zero, 1024, 512), true},
		{"half a sector zero", with(zero, 1024, 256), false},
		{"too little", with(zero, 512, 1023), false},
		{"too much", with(zero, 511, 1025), false},
		{"something else", with([]byte{8}, 600, 1), false},
	} {
		d := fresh()
		err := d.Settle(c.got, 0)
		if (err == nil) != c.ok {
			t.Errorf("%s: error is %v, want ok %t", c.name, err, c.ok)
		}
		if !c.ok {
			continue
		}
		for _, other := range [][]byte{old, with(zero, 512, 1024)} { // what was seen, stays
			if err := d.Settle(other, 0); (err == nil) != bytes.Equal(other, c.got) {
				t.Errorf("%s: a second read of other content: %v", c.name, err)
			}
		}
	}
}

// Each piece that a discard has left open in a sector is zero or as before.
func TestPiecesOfASector(t *testing.T) {
	seven := func(n int) []byte { return bytes.Repeat([]byte{7}, n) }
	fresh := func() *Disk {
		d := NewDisk(512, seven(512))
		d.Discard(0, 400, 1)
		d.Write([]byte{1, 2, 3}, 100)
		d.Discard(300, 212, 2)
		return d
	}
	zero := func(p []byte, off, end int) []byte {
		clear(p[off:end])
		return p
	}
	pattern := func() []byte {
		p := seven(512)
		copy(p[100:], []byte{1, 2, 3})
		return p
	}
	for _, c := range []struct {
		name string
		got  []byte
		ok   bool
	}{
		{"as before", pattern(), true},
		{"only the first", zero(zero(pattern(), 0, 100), 103, 400), true},
		{"only the second", zero(pattern(), 300, 512), true},
		{"the write", zero(pattern(), 0, 400), false},
		{"a part of the second", zero(pattern(), 401, 512), false},
		{"a part of both", zero(pattern(), 310, 400), false},
	} {
		if err := fresh().Settle(c.got, 0); (err == nil) != c.ok {
			t.Errorf("%s: error is %v, want ok %t", c.name, err, c.ok)
		}
	}
}

func TestResize(t *testing.T) {
	d := NewDisk(1024, bytes.Repeat([]byte{7}, 1024))
	d.Resize(512)
	d.Resize(2048)
	want := append(bytes.Repeat([]byte{7}, 512), make([]byte, 1536)...)
	if err := d.Settle(want, 0); err != nil {
		t.Error(err)
	}
}
