package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
)

// Headers made to do harm are refused before memory is taken, with a sentence
// that says what is wrong, and nothing is changed. What opens can be read, and
// checked, without harm. QEMU is asked about each of them, too, and where it
// decides otherwise there is a reason.

func TestHostileHeaders(t *testing.T) {
	for _, h := range hostileHeaders() {
		t.Run(h.name, func(t *testing.T) {
			f := seed(t, h.seed)
			h.edit(f)
			before := runtime.NumGoroutine()
			h.tryInspect(t, f)
			h.tryReading(t, f)
			h.tryWriting(t, f)
			goroutines(t, before)
		})
	}
}

// expect compares what opening or inspecting has said.
func (v verdict) expect(t *testing.T, what string, err error) {
	t.Helper()
	if v != opens {
		refused(t, what, err, v.kind, v.text)
	} else if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func (h *hostile) tryInspect(t *testing.T, f *forge) {
	file := &meter{m: f.file()}
	var err error
	heap := allocates(func() {
		within(t, "inspecting", func() { _, err = qcow2.Inspect(file) })
	})
	h.inspect.expect(t, "inspecting", err)
	if heap > inspectHeap || file.read.Load() > inspectReads {
		t.Errorf("inspecting takes %d bytes of memory and reads %d bytes", heap, file.read.Load())
	}
}

func (h *hostile) tryReading(t *testing.T, f *forge) {
	file, policy := &meter{m: f.file()}, &spy{}
	var img *block.Image
	var err error
	heap := allocates(func() {
		within(t, "opening", func() { img, err = qcow2.Open(file, &qcow2.OpenOptions{Policy: policy}) })
	})
	h.read.expect(t, "opening", err)
	if heap > openHeap {
		t.Errorf("opening takes %d bytes of memory", heap)
	}
	if asked := strings.Join(policy.asked, ", "); asked != h.asks {
		t.Errorf("the policy was asked for %q, want %q", asked, h.asks)
	}
	if err == nil {
		within(t, "using", func() { useReadOnly(t, img) })
	}
	if !bytes.Equal(contentOf(t, file), f.b) {
		t.Error("the file has changed")
	}
}

// useReadOnly reads, maps, describes, checks and closes an image; errors are
// allowed, as they are what is expected of most images here.
func useReadOnly(t testing.TB, img *block.Image) {
	_ = readAll(img, 4<<20)
	for _, err := range img.Extents(0, img.Size()) {
		if err != nil {
			break
		}
	}
	if d, ok := block.As[block.Describer](img); ok {
		_, _ = d.Describe()
	}
	if c, ok := block.As[block.Checker](img); ok {
		_, _ = c.Check(context.Background(), block.CheckOptions{})
	}
	if err := img.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
}

func (h *hostile) tryWriting(t *testing.T, f *forge) {
	file, policy := &meter{m: f.file()}, &spy{}
	var img *block.Image
	var err error
	heap := allocates(func() {
		within(t, "opening for writing", func() {
			img, err = qcow2.Open(file, &qcow2.OpenOptions{Policy: policy, Writable: true})
		})
	})
	h.write.expect(t, "opening for writing", err)
	if heap > openHeap {
		t.Errorf("opening for writing takes %d bytes of memory", heap)
	}
	if asked := strings.Join(policy.asked, ", "); asked != h.asks {
		t.Errorf("the policy was asked for %q, want %q", asked, h.asks)
	}
	if err != nil {
		if !bytes.Equal(contentOf(t, file), f.b) {
			t.Error("the file has changed, and was not opened")
		}
		return
	}
	if h.keeps != "" {
		within(t, "writing", func() { h.refusesWrites(t, img) })
		if !bytes.Equal(contentOf(t, file), f.b) {
			t.Error("the file has changed")
		}
		return
	}
	within(t, "writing", func() {
		if _, err := img.WriteAt(seedData(0, 8192), 0); err != nil {
			t.Errorf("writing: %v", err)
		}
		if err := img.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
}

// refusesWrites has an image say why nothing can be written.
func (h *hostile) refusesWrites(t *testing.T, img *block.Image) {
	_, err := img.WriteAt(seedData(0, 8192), 0)
	refused(t, "writing", err, block.ErrBroken, h.keeps)
	if s, ok := block.As[block.Snapshotter](img); ok {
		_, err := s.CreateSnapshot(context.Background(), block.Snapshot{Name: "new"}, nil)
		if err == nil {
			t.Error("a snapshot has been made")
		}
	}
	if err := img.Close(); !errors.Is(err, block.ErrBroken) {
		t.Errorf("closing: %v", err)
	}
}

func TestHostileHeadersByQEMU(t *testing.T) {
	qemu.Need(t, "qemu-io")
	for _, writing := range []bool{false, true} {
		dir := t.TempDir()
		all := hostileHeaders()
		var paths []string
		for i, h := range all {
			f := seed(t, h.seed)
			h.edit(f)
			paths = append(paths, filepath.Join(dir, fmt.Sprint(i)))
			must(t, os.WriteFile(paths[i], f.b, 0o666))
		}
		for i, said := range openByQEMU(paths, writing) {
			h := all[i]
			ours, differs := h.read, h.differs
			if writing {
				ours, differs = h.write, h.differsWriting
			}
			if ours.kind == block.ErrRefused {
				continue // QEMU asks nobody
			}
			if agree := (ours == opens) == (said == ""); agree != (differs == "") {
				t.Errorf("%s, for writing %v: QEMU says %q, we say %q; given for the difference: %q", h.name, writing, said, ours.text, differs)
			}
		}
	}
}

// openByQEMU has one qemu-io process open images, one after the other, and
// returns what it says of each; nothing if it opens.
func openByQEMU(paths []string, writing bool) []string {
	flag := " -r"
	if writing {
		flag = ""
	}
	var commands []string
	for _, p := range paths {
		commands = append(commands, "open"+flag+" -o driver=qcow2 "+p, "close")
	}
	out, _ := qemu.TryIO(commands...)
	said := make([]string, len(paths))
	for line := range strings.Lines(out) {
		for i, p := range paths {
			if _, text, ok := strings.Cut(line, "can't open device "+p+": "); ok {
				said[i] = strings.TrimSpace(text)
			}
		}
	}
	return said
}
