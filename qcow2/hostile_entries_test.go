package qcow2_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
)

// Table entries that can't be: misaligned, beyond the end of the file, with
// bits that mean nothing. What they say of one cluster does no harm to another.

// badEntry is an image in which the first guest cluster, or all of them, can't
// be had as it should.
type badEntry struct {
	name, seed string
	edit       func(f *forge)
	// What reading and writing the first 512 bytes says, nothing if it works.
	read, write string
	zero        bool // it reads as zeros
	unmarked    bool // writing does not mark the image: the damage is of the file, not in a table
	found       string
	// Why QEMU decides otherwise, of reading and of writing.
	differs, differsWriting string
}

const (
	beyondEnd = "data cluster at 0x10000000000 lies beyond the end of the file"
	notOwned  = "a cluster that is not in the file was never taken, and the file would get as long as the entry says"
)

// beyond is where no file of a test reaches, a multiple of all cluster sizes.
const beyond = 1 << 40

func badEntries() (list []badEntry) {
	l2 := func(seed string, v uint64) func(f *forge) {
		return func(f *forge) { f.put64(f.l2(0), v) }
	}
	l1 := func(v uint64) func(f *forge) { return func(f *forge) { f.put64(f.l1(0), v) } }
	misaligned := func(seed string, cluster int, off uint64) {
		text := fmt.Sprintf("cluster offset %#x is not a multiple of the cluster size %d", off, cluster)
		for _, flags := range []uint64{0, copiedFlag, copiedFlag | zeroFlag} {
			if flags&zeroFlag != 0 && seed == "v2" {
				continue
			}
			b := badEntry{seed: seed, edit: l2(seed, off|flags), read: text, write: text, found: "cluster is not properly aligned; L2 entry corrupted."}
			b.name = fmt.Sprintf("%s L2 entry %#x", seed, off|flags)
			list = append(list, b)
		}
	}
	misaligned("v3", 4096, 0x5200)
	misaligned("v2", 4096, beyond+512)
	misaligned("64k", 64<<10, 0x8000)
	list = append(list,
		badEntry{name: "L2 entry with reserved bits", seed: "v3", edit: func(f *forge) { f.or64(f.l2(0), 0x3f000000000001fe) }, found: "ERROR found l2 entry with reserved bits set"},
		badEntry{name: "L2 entry of reserved bits", seed: "v3", edit: l2("v3", 0x3f000000000001fe), zero: true, found: "ERROR found l2 entry with reserved bits set"},
		badEntry{name: "data beyond the end", seed: "v3", edit: l2("v3", beyond|copiedFlag), zero: true, write: beyondEnd, differsWriting: notOwned, found: "exceeding the end of the file"},
		badEntry{name: "shared data beyond the end", seed: "v3", edit: l2("v3", beyond), zero: true, found: "exceeding the end of the file", write: beyondEnd, differsWriting: notOwned},
		badEntry{name: "data at the last offset", seed: "v3", edit: l2("v3", 1<<56-4096|copiedFlag), zero: true, write: "data cluster at 0xfffffffffff000 lies beyond the end of the file", found: "exceeding the end of the file"},
		badEntry{name: "zero cluster in version 2", seed: "v2", edit: func(f *forge) { f.or64(f.l2(0), zeroFlag) },
			read: "is a zero cluster, which version 2 does not have", write: "is a zero cluster, which version 2 does not have", found: "reserved bits set"},
	)
	for _, off := range []uint64{0x5200, 0x3e00, beyond + 512} {
		text := fmt.Sprintf("L2 table offset %#x unaligned (L1 index: 0)", off)
		list = append(list, badEntry{name: fmt.Sprintf("L1 entry %#x", off), seed: "v3", edit: l1(off | copiedFlag), read: text, write: text, found: "Table is not cluster aligned; L1 entry corrupted"})
	}
	list = append(list,
		badEntry{name: "L2 table beyond the end", seed: "v3", edit: l1(beyond | copiedFlag), found: "exceeding the end of the file",
			read: "L2 table at 0x10000000000 lies beyond the end of the file", write: "L2 table at 0x10000000000 lies beyond the end of the file",
			unmarked: true, differs: cutTable, differsWriting: cutTable},
		badEntry{name: "shared L2 table beyond the end", seed: "v3", edit: l1(beyond), found: "exceeding the end of the file",
			read: "L2 table at 0x10000000000 lies beyond the end of the file", write: "L2 table at 0x10000000000 lies beyond the end of the file",
			unmarked: true, differs: cutTable, differsWriting: cutTable},
		badEntry{name: "L1 entry with reserved bits", seed: "v3", edit: func(f *forge) { f.or64(f.l1(0), 0x7f000000000001ff) }, found: "ERROR found L1 entry with reserved bits set"},
		badEntry{name: "subcluster that is allocated and zero", seed: "sub", edit: func(f *forge) { f.or64(f.l2(0)+8, 1<<32) },
			read: "subcluster 0 is both allocated and zero", write: "subcluster 0 is both allocated and zero", found: "corrupted subcluster allocation bitmap"},
		badEntry{name: "subcluster without a cluster", seed: "sub", edit: l2("sub", copiedFlag),
			read: "subcluster 0 is allocated in bitmap 0xffffffff, but the cluster has no offset", write: "the cluster has no offset", found: "Leaked cluster"},
	)
	return list
}

func TestBadEntries(t *testing.T) {
	for _, b := range badEntries() {
		t.Run(b.name, func(t *testing.T) {
			f := seed(t, b.seed)
			b.edit(f)
			b.tryReading(t, f)
			b.tryWriting(t, f)
		})
	}
}

func (b *badEntry) tryReading(t *testing.T, f *forge) {
	file := f.file()
	img, err := qcow2.Open(file.Reopen(), nil)
	must(t, err)
	p := make([]byte, 512)
	_, err = img.ReadAt(p, 0)
	if b.read != "" {
		refused(t, "reading", err, block.ErrCorrupt, b.read)
	} else if err != nil {
		t.Errorf("reading: %v", err)
	} else if want := seedData(0, 512); bytes.Equal(p, want) == b.zero {
		t.Errorf("read %x", p[:16])
	}
	var found []string
	c, _ := block.As[block.Checker](img)
	within(t, "checking", func() {
		_, err = c.Check(context.Background(), block.CheckOptions{Report: func(f block.Finding) { found = append(found, f.Text) }})
	})
	if err != nil || !strings.Contains(strings.Join(found, "\n"), b.found) {
		t.Errorf("checking: %v %q, want %q", err, found, b.found)
	}
	must(t, img.Close())
	if !bytes.Equal(contentOf(t, file), f.b) {
		t.Error("the file has changed")
	}
}

func (b *badEntry) tryWriting(t *testing.T, f *forge) {
	file := f.file()
	img, err := qcow2.Open(file.Reopen(), &qcow2.OpenOptions{Writable: true})
	must(t, err)
	p := bytes.Repeat([]byte{0xee}, 512)
	_, err = img.WriteAt(p, 0)
	if b.write == "" {
		must(t, err)
		got := make([]byte, 512)
		if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, p) {
			t.Errorf("what was written reads as %x: %v", got[:16], err)
		}
		must(t, img.Close())
		return
	}
	refused(t, "writing", err, block.ErrCorrupt, b.write)
	closing := img.Close()
	after := &forge{contentOf(t, file)}
	if len(after.b) > len(f.b)+2*int(f.cluster()) {
		t.Errorf("the file had %d bytes and has %d", len(f.b), len(after.b))
	}
	if b.unmarked {
		must(t, closing)
		return
	}
	refused(t, "closing", &block.Error{Format: "qcow2", Err: closing}, block.ErrBroken, "marked corrupt")
	if f.v3() && after.u64(hIncompat)&bitCorrupt == 0 {
		t.Errorf("not marked corrupt after %v", err)
	}
}

// In an external data file each cluster has its place. Entries that name another
// one, or compressed data, reach nothing.
func TestBadEntriesOfDataFile(t *testing.T) {
	elsewhere := func(off uint64) string {
		return fmt.Sprintf("cluster offset %#x in the external data file is not the guest offset 0x2000", off)
	}
	for _, kind := range []string{"datafile", "dataraw"} {
		const at = 2 * 4096
		for entry, text := range map[uint64]string{
			copiedFlag:                        elsewhere(0),
			copiedFlag | zeroFlag:             elsewhere(0),
			0x5000 | copiedFlag:               elsewhere(0x5000),
			0x5000:                            elsewhere(0x5000),
			0x5000 | copiedFlag | zeroFlag:    elsewhere(0x5000),
			beyond | copiedFlag:               elsewhere(beyond),
			0x5200 | copiedFlag:               "cluster offset 0x5200 is not a multiple of the cluster size 4096",
			0x4000 | compressedFlag:           "is a compressed cluster, which an image with an external data file does not have",
			compressedFlag | copiedFlag | 512: "is a compressed cluster",
		} {
			f := seed(t, kind)
			f.put64(f.l2(at), entry)
			data := memoryOf(seedData(0, seedClusters*f.cluster()))
			before := contentOf(t, data)
			img, err := qcow2.Open(f.file(), &qcow2.OpenOptions{Writable: true, Data: data.Reopen()})
			must(t, err)
			what := fmt.Sprintf("%s, entry %#x", kind, entry)
			_, err = img.ReadAt(make([]byte, 512), at)
			refused(t, what+", reading", err, block.ErrCorrupt, text)
			_, err = img.WriteAt(make([]byte, 512), at)
			refused(t, what+", writing", err, block.ErrCorrupt, text)
			if err := img.Close(); err == nil {
				t.Errorf("%s: not broken", what)
			}
			if !bytes.Equal(contentOf(t, data), before) {
				t.Errorf("%s: the data file has changed", what)
			}
		}
	}
}

func TestBadEntriesByQEMU(t *testing.T) {
	qemu.Need(t, "qemu-io")
	dir := t.TempDir()
	list := badEntries()
	for _, writing := range []bool{false, true} {
		var commands []string
		for i, b := range list {
			f := seed(t, b.seed)
			b.edit(f)
			path := filepath.Join(dir, fmt.Sprintf("%d-%v", i, writing))
			must(t, os.WriteFile(path, f.b, 0o666))
			if writing {
				commands = append(commands, "open -o driver=qcow2 "+path, "write -P 0xee 0 512", "close")
			} else {
				commands = append(commands, "open -r -o driver=qcow2 "+path, "read 0 512", "close")
			}
		}
		out, _ := qemu.TryIO(commands...)
		var said []string
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "read") || strings.HasPrefix(line, "wrote") || strings.HasPrefix(line, "write") {
				said = append(said, strings.TrimSpace(line))
			}
		}
		if len(said) != len(list) {
			t.Fatalf("%d answers to %d questions:\n%s", len(said), len(list), out)
		}
		for i, b := range list {
			ours, why := b.read, b.differs
			if writing {
				ours, why = b.write, b.differsWriting
			}
			if agree := (ours == "") == !strings.Contains(said[i], "failed"); agree != (why == "") {
				t.Errorf("%s, writing %v: QEMU says %q, we say %q; given for the difference: %q", b.name, writing, said[i], ours, why)
			}
		}
	}
}
