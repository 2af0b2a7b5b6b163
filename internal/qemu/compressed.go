package qemu

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Compression is the method of a qcow2 image's compressed clusters.
type Compression uint8

// The methods, as the image header numbers them.
const (
	Deflate Compression = iota
	Zstd
)

// Decompress has qemu-img read a compressed cluster. It makes a qcow2 image
// of one cluster of 1<<clusterBits bytes, whose compressed data is the given, at
// least one byte, and zeros up to the end of the last sector. The error is
// qemu-img's refusal.
func Decompress(t testing.TB, m Compression, clusterBits int, data []byte) ([]byte, error) {
	t.Helper()
	Need(t, "qemu-img")
	path := filepath.Join(t.TempDir(), "cluster.qcow2")
	if err := os.WriteFile(path, oneCluster(m, clusterBits, data), 0o666); err != nil {
		t.Fatal(err)
	}
	raw := path + ".raw"
	if _, stderr, code := run("", "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw); code != 0 {
		return nil, fmt.Errorf("qemu-img: exit code %d: %s", code, stderr)
	}
	if r := Check(t, path, "qcow2"); r.CompressedData != 1 {
		t.Fatalf("qemu-img counts %d compressed clusters, want 1", r.CompressedData)
	}
	got, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	return got, nil
}

// oneCluster is a version 3 image in which each structure has a cluster of its
// own: header, refcount table, refcount block, L1 table, L2 table, data.
func oneCluster(m Compression, clusterBits int, data []byte) []byte {
	const first = 5 // of the data
	size := 1 << clusterBits
	clusters := first + (len(data)+size-1)/size
	p := make([]byte, clusters*size)
	be := binary.BigEndian
	cluster := func(n int) []byte { return p[n*size:][:size] }
	at := func(n int) uint64 { return uint64(n * size) }

	h := cluster(0)
	be.PutUint32(h, 0x514649fb)
	be.PutUint32(h[4:], 3)
	be.PutUint32(h[20:], uint32(clusterBits))
	be.PutUint64(h[24:], uint64(size))
	be.PutUint32(h[36:], 1) // entries of the L1 table
	be.PutUint64(h[40:], at(3))
	be.PutUint64(h[48:], at(1))
	be.PutUint32(h[56:], 1) // clusters of the refcount table
	be.PutUint64(h[72:], uint64(min(m, 1))<<3)
	be.PutUint32(h[96:], 4) // refcounts of 16 bits
	be.PutUint32(h[100:], 112)
	h[104] = byte(m)

	be.PutUint64(cluster(1), at(2))
	for i := range clusters {
		be.PutUint16(cluster(2)[2*i:], 1)
	}
	be.PutUint64(cluster(3), 1<<63|at(4))
	sectors := uint64(len(data)+511)/512 - 1
	be.PutUint64(cluster(4), 1<<62|sectors<<(62-(clusterBits-8))|at(first))
	copy(p[first*size:], data)
	return p
}
