package vhd_test

import (
	"testing"

	"github.com/diskimg/diskimg/storage"
	"github.com/diskimg/diskimg/vhd"
)

// A fixed disk is known by its footer, and by nothing less than one that speaks
// of all that is in the file.
func TestProbeEnd(t *testing.T) {
	const size = 1 << 20
	for _, c := range []struct {
		name   string
		o      vhd.CreateOptions
		spoil  func(end []byte)
		longer int64 // bytes in the file besides
		want   bool
	}{
		{"exact size", vhd.CreateOptions{Size: size}, nil, 0, true},
		{"size by geometry", vhd.CreateOptions{Size: size, RoundToGeometry: true}, nil, 0, true},
		{"dynamic", vhd.CreateOptions{Size: size, Type: vhd.Dynamic}, nil, 0, false},
		{"checksum", vhd.CreateOptions{Size: size}, func(b []byte) { b[64]++ }, 0, false},
		{"cookie", vhd.CreateOptions{Size: size}, func(b []byte) { b[0] = 'C'; sum(b, 64) }, 0, false},
		{"type dynamic", vhd.CreateOptions{Size: size}, func(b []byte) { b[63] = 3; sum(b, 64) }, 0, false},
		{"has a dynamic header", vhd.CreateOptions{Size: size}, func(b []byte) { clear(b[16:24]); sum(b, 64) }, 0, false},
		{"a smaller disk", vhd.CreateOptions{Size: size}, func(b []byte) { b[54] = 0xfe; sum(b, 64) }, 0, false},
		{"a larger disk", vhd.CreateOptions{Size: size}, func(b []byte) { b[53] = 0xff; sum(b, 64) }, 0, false},
		{"the geometry of a smaller disk", vhd.CreateOptions{Size: size}, func(b []byte) { copy(b[28:], "qemu"); b[57] = 1; sum(b, 64) }, 0, false},
		{"bytes before the disk", vhd.CreateOptions{Size: size}, nil, 512, false},
	} {
		f := storage.NewMemory()
		if c.o.Type == 0 {
			c.o.Type = vhd.Fixed
		}
		if err := vhd.Create(f, &c.o); err != nil {
			t.Fatal(err)
		}
		n, err := f.Size()
		if err != nil {
			t.Fatal(err)
		}
		end := make([]byte, 512)
		if _, err := f.ReadAt(end, n-512); err != nil {
			t.Fatal(err)
		}
		if c.spoil != nil {
			c.spoil(end)
		}
		if vhd.ProbeEnd(end, n+c.longer) != c.want {
			t.Errorf("%s: %v", c.name, !c.want)
		}
	}
	for _, n := range []int{0, 8, 511} {
		if vhd.ProbeEnd([]byte("conectix" + string(make([]byte, 512)))[:n], 512) {
			t.Errorf("%d bytes", n)
		}
	}
}
