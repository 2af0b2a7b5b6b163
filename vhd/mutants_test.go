package vhd_test

import (
	"testing"

	"github.com/diskimg/diskimg/internal/mutant"
)

// Each ordering rule of doc.go is broken on purpose, by an edit of the line that
// keeps it, and the crash test has to notice.

var orderMutants = []mutant.Edit{
	{Name: "links before data", File: "flush.go",
		From: "if err := d.sync(); err != nil || len(links) == 0 {\n\t\treturn err\n\t}",
		To:   "if len(links) == 0 {\n\t\treturn d.sync()\n\t}"},
	{Name: "a flush that does not wait for the disk", File: "flush.go",
		From: "\t\t\treturn err\n\t\t}\n\t}\n\treturn d.sync()",
		To:   "\t\t\treturn err\n\t\t}\n\t}\n\treturn nil"},
	{Name: "a block linked before it is written", File: "alloc.go",
		From: "n := newBlock{index: i, place: d.end}",
		To:   "n := newBlock{index: i, place: d.end}\n\td.bat[i], d.batDirty[i*4/sectorSize] = uint32(d.end/sectorSize), true\n\td.mu.Unlock()\n\td.end += d.span()\n\t_ = d.Flush()\n\td.end -= d.span()\n\td.mu.Lock()"},
	{Name: "a block without its first bitmap", File: "write.go",
		From: "if _, err := d.file.WriteAt(d.firstBitmap(), b.place); err != nil {\n\t\treturn err\n\t}",
		To:   ""},
	{Name: "bits before data", File: "write.go",
		From: "if err := fill(func(at int64) int64 { return data + at }, false); err != nil {\n\t\t\treturn err\n\t\t}",
		To:   "if err := d.mark(off, n); err != nil {\n\t\t\treturn err\n\t\t}\n\t\t_ = d.Flush()\n\t\tif err := fill(func(at int64) int64 { return data + at }, false); err != nil {\n\t\t\treturn err\n\t\t}"},
	{Name: "the copy of the footer changes while the other is there", File: "resize.go",
		From: "if err := d.file.Truncate(d.end); err != nil {\n\t\treturn err\n\t}\n\t// Before the copy at the beginning changes, the footer at the end must be\n\t// gone: where they differ nobody may write.\n\treturn d.syncTables()",
		To:   "return nil"},
	{Name: "the copy of the footer changes before the other is surely gone", File: "resize.go",
		From: "gone: where they differ nobody may write.\n\treturn d.syncTables()",
		To:   "gone: where they differ nobody may write.\n\treturn nil"},
	{Name: "the header names a table that is not on disk", File: "resize.go",
		From: "\tif err := d.syncTables(); err != nil {\n\t\treturn err\n\t}\n\td.bat = bat",
		To:   "\td.bat = bat"},
	{Name: "the disk is longer before the parent is hidden", File: "resize.go",
		From: "if err := d.zeroBeyond(t, old, size); err != nil {\n\t\t// Blocks behind the end of the disk are of no use.\n\t\treturn errors.Join(err, d.dropBehind(old))\n\t}",
		To:   "defer func() { _ = d.zeroBeyond(t, old, size) }()"},
	{Name: "space given back before the table lets go of it", File: "empty.go",
		From: "if err := d.putTables(encodeTable(none), int64(d.hdr.tableOffset)+first*4); err != nil {\n\t\treturn err\n\t}",
		To:   "defer func() { _ = d.putTables(encodeTable(none), int64(d.hdr.tableOffset)+first*4) }()"},
	{Name: "the footer leads to a header that is not on disk", File: "backing.go",
		From: "if err := d.putTables(bytes.Join([][]byte{names, h.encode(), make([]byte, footerSize)}, nil), d.end); err != nil {",
		To:   "if _, err := d.file.WriteAt(bytes.Join([][]byte{names, h.encode(), make([]byte, footerSize)}, nil), d.end); err != nil {"},
	{Name: "the header changes while the footer leads to it", File: "backing.go",
		From: "foot.dataOffset = uint64(end)\n\tif err := d.putTables(foot.encode(), 0); err != nil {\n\t\treturn err\n\t}",
		To:   ""},
	{Name: "the header changes before the footer surely leads elsewhere", File: "backing.go",
		From: "foot.dataOffset = uint64(end)\n\tif err := d.putTables(foot.encode(), 0); err != nil {",
		To:   "foot.dataOffset = uint64(end)\n\tif _, err := d.file.WriteAt(foot.encode(), 0); err != nil {"},
	{Name: "the footer leads back before the header is on disk", File: "backing.go",
		From: "if err := d.putTables(h.encode(), int64(home)); err != nil {",
		To:   "if _, err := d.file.WriteAt(h.encode(), int64(home)); err != nil {"},
	{Name: "a fixed disk's old footer goes before the new one is on disk", File: "fixed_resize.go",
		From: "// Before the old footer goes the new one must be on disk.\n\tif err := d.sync(); err != nil {\n\t\treturn err\n\t}",
		To:   ""},
}

func TestOrderMutants(t *testing.T) {
	mutant.MustFail(t, orderMutants, "TestCrash", "-crash.states=100000")
}
