package model_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/formats"
	"github.com/diskimg/diskimg/internal/model"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/internal/tiny"
)

// Raw images are the simplest that QEMU and we have in common.
func TestReplayRaw(t *testing.T) {
	model.Replay(t, formats.Get(t, "raw", nil), model.Options{Runs: 3})
}

func TestRelayRaw(t *testing.T) {
	model.Relay(t, formats.Get(t, "raw", nil), model.Options{Runs: 3})
}

// flipped is a file that stores the complement of what it is given.
type flipped struct{ block.File }

func flip(p []byte) []byte {
	q := make([]byte, len(p))
	for i := range p {
		q[i] = ^p[i]
	}
	return q
}

func (f flipped) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	copy(p, flip(p[:n]))
	return n, err
}

func (f flipped) WriteAt(p []byte, off int64) (int, error) { return f.File.WriteAt(flip(p), off) }

// flippedRaw is a raw format that reads well what it has written, but not what
// others have.
func flippedRaw(t *testing.T) blocktest.Format {
	f := formats.Get(t, "raw", nil)
	create, open := f.Create, f.Open
	wrap := func(file block.File) block.File { return flipped{file} }
	f.Create = func(path string, o blocktest.CreateOptions) error {
		if err := create(path, o); err != nil {
			return err
		}
		return os.WriteFile(path, bytes.Repeat([]byte{0xff}, int(o.Size)), 0o600)
	}
	f.Open = func(path string, o blocktest.OpenOptions) (*block.Image, error) {
		o.Wrap = wrap
		return open(path, o)
	}
	return f
}

// That the two programs do not understand each other is seen.
func TestReplayFindsOwnDialect(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	f := flippedRaw(t)
	model.Run(t, f, model.Options{Runs: 2})
	failure := tiny.Fails(t, func(t testing.TB) { model.Replay(t, f, model.Options{Runs: 1}) })
	if !strings.Contains(failure, "QEMU reads it otherwise") {
		t.Errorf("replay fails with %q", failure)
	}
	if failure := tiny.Fails(t, func(t testing.TB) { model.Relay(t, f, model.Options{Runs: 2}) }); failure == "" {
		t.Error("relay passes")
	}
}
