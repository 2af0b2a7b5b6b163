package storage_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What File adds to the system calls.
func BenchmarkFile4K(b *testing.B) {
	f := create(b, newPath(b))
	p := make([]byte, 4096)
	if _, err := f.WriteAt(p, 0); err != nil {
		b.Fatal(err)
	}
	plain := openPlain(b, f.Name())
	for _, bench := range []struct {
		name string
		run  func() (int, error)
	}{
		{"read", func() (int, error) { return f.ReadAt(p, 0) }},
		{"read/pread", func() (int, error) { return unix.Pread(int(plain.Fd()), p, 0) }},
		{"write", func() (int, error) { return f.WriteAt(p, 0) }},
		{"write/pwrite", func() (int, error) { return unix.Pwrite(int(plain.Fd()), p, 0) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bench.run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
