package qcow2_test

import (
	"testing"

	"github.com/diskimg/diskimg/internal/mutant"
)

// Each ordering rule of doc.go is broken on purpose, by an edit of the line that
// keeps it, and the crash test has to notice.

var orderMutants = []mutant.Edit{
	{Name: "links before data and counts", File: "flush.go",
		From: "if b.newData || len(b.counts) > 0 || len(b.reftable) > 0 {",
		To:   "if false {"},
	{Name: "links before data, counts in order", File: "flush.go",
		From: "if b.newData || len(b.counts) > 0 || len(b.reftable) > 0 {",
		To:   "if len(b.counts) > 0 || len(b.reftable) > 0 {"},
	{Name: "links before counts, data in order", File: "flush.go",
		From: "if b.newData || len(b.counts) > 0 || len(b.reftable) > 0 {",
		To:   "if b.newData {"},
	{Name: "counts never written before links", File: "flush.go",
		From: "if err := d.writePieces(b.counts); err != nil {",
		To:   "if err := d.writePieces(nil); err != nil {"},
	{Name: "refcount table before its blocks", File: "flush.go",
		From: "if err := d.syncTables(); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tif err := d.writePieces(b.reftable)",
		To:   "if err := d.writePieces(b.reftable)"},
	{Name: "a flush that does not wait for the disk", File: "flush.go",
		From: "used again, they must be on disk.\n\treturn d.sync()",
		To:   "used again, they must be on disk.\n\treturn nil"},
	{Name: "counts fall before links are on disk", File: "refcount.go",
		From: "func (d *disk) release(c, n int64) {",
		To:   "func (d *disk) release(c, n int64) {\n\tfor i := range n {\n\t\t_ = d.addRef(c+i, -1)\n\t}\n\tif true {\n\t\treturn\n\t}"},
	{Name: "space used again before links are on disk", File: "flush.go",
		From: "err = d.writeBatch(b)\n\td.mu.Lock()\n\tdefer d.mu.Unlock()",
		To:   "d.mu.Lock()\n\tdefer d.mu.Unlock()\n\t_ = d.retire(b.unlinked)\n\tb.unlinked = nil\n\tb.counts = cachePieces(metaRefblock, d.refs.TakeDirty())\n\terr = d.writeBatch(b)"},
	{Name: "external data not synced", File: "flush.go",
		From: "if err := d.data.Sync(); err != nil {\n\t\t\treturn err\n\t\t}",
		To:   ""},
	{Name: "published before it is written", File: "write.go",
		From: "err = d.fill(&a, p[:n], off)\n\tif err == nil {\n\t\terr = d.publish(&a)\n\t}",
		To:   "err = d.publish(&a)\n\tif err == nil {\n\t\t_ = d.Flush()\n\t\terr = d.fill(&a, p[:n], off)\n\t}"},
	{Name: "a new table not written when it is allocated", File: "tables.go",
		From: "if _, err := d.file.WriteAt(data, int64(off)); err != nil {\n\t\td.unalloc(run)\n\t\treturn 0, err\n\t}\n\td.l2.Forget",
		To:   "d.l2.Forget"},
	{Name: "header names a refcount table that is not on disk", File: "refcount.go",
		From: "if err := d.syncTables(); err != nil {\n\t\treturn d.poison(err)\n\t}",
		To:   ""},
	{Name: "header names an L1 table that is not on disk", File: "resize.go",
		From: "if err := d.writeCounts(); err != nil {\n\t\treturn err\n\t}\n\tvar field",
		To:   "var field"},
	{Name: "header names shared tables that are not on disk", File: "swap.go",
		From: "must\n\t\t// be on disk.\n\t\terr = d.sync()",
		To:   "must\n\t\t// be on disk."},
	{Name: "header names a snapshot table that is not on disk", File: "snapshot_change.go",
		From: "if err := d.writeCounts(); err != nil {\n\t\treturn err\n\t}\n\tfield",
		To:   "field"},
	{Name: "shared counts fall in place", File: "swap.go",
		From: "c.reftable, d.reftable = d.reftable, table",
		To:   "c.reftable = d.reftable"},
	{Name: "a snapshot's space is given up before its record is gone", File: "snapshot_change.go",
		From: "if err := d.writeSnapshots(append(records[:at:at], records[at+1:]...), oldSize); err != nil {\n\t\treturn nil, err\n\t}",
		To:   "for i := range records {\n\t\tif i == at {\n\t\t\td.mu.Unlock()\n\t\t\t_ = d.dropTree(t, l1)\n\t\t\td.mu.Lock()\n\t\t}\n\t}\n\tif err := d.writeSnapshots(append(records[:at:at], records[at+1:]...), oldSize); err != nil {\n\t\treturn nil, err\n\t}"},
	{Name: "a longer disk shows before what makes it zero is on disk", File: "resize.go",
		From: "must be on disk.\n\treturn d.finish()",
		To:   "must be on disk.\n\treturn nil"},
	{Name: "header names refcounts of another width that are not on disk", File: "widen.go",
		From: "if err := d.syncTables(); err != nil {\n\t\treturn d.poison(err)\n\t}\n\th := ",
		To:   "h := "},
	{Name: "a header of version 2 before entries of version 3 are gone", File: "alone.go",
		From: "if err := d.quiesce(); err != nil {\n\t\t\treturn err\n\t\t}\n\t\treturn f()",
		To:   "return f()"},
	{Name: "a snapshot's entry before the zeros that it names", File: "expand.go",
		From: "if err := d.writeCounts(); err != nil {\n\t\treturn err\n\t}",
		To:   ""},
	{Name: "refcounts postponed in an image that is not marked", File: "refcount.go",
		From: "if err := d.markUnclean(); err != nil {\n\t\treturn err\n\t}",
		To:   "d.hdr.incompat |= incompatDirty"},
	{Name: "the mark taken off before refcounts are on disk", File: "close.go",
		From: "err = errors.Join(err, d.finish())",
		To:   "err = errors.Join(err, d.markClean(), d.finish())"},
	{Name: "freed space punched before its links are gone from the disk", File: "refcount.go",
		From: "d.unlinked = appendRun(",
		To:   "if d.discards.passes(d.cause) {\n\t\td.holes = append(d.holes, hostRun{start: c, n: n})\n\t\td.punch()\n\t}\n\td.unlinked = appendRun("},
	{Name: "data linked as if it were on disk", File: "tables.go",
		From: "d.newData = true",
		To:   ""},
}

func TestOrderMutants(t *testing.T) {
	mutant.MustFail(t, orderMutants, "TestCrash", "-crash.states=100000")
}

// The same for repairs.
var repairMutants = []mutant.Edit{
	{Name: "the corrupt mark taken off before the repair", File: "check.go",
		From: "	err = k.repair()\n",
		To:   "	_ = d.markSound()\n\terr = k.repair()\n"},
	{Name: "header names refcounts made anew that are not on disk", File: "repair.go",
		From: "if err := d.syncTables(); err != nil {\n\t\treturn d.poison(err)\n\t}\n\tvar field",
		To:   "var field"},
}

func TestRepairMutants(t *testing.T) { mutant.MustFail(t, repairMutants, "TestRepairCrash") }
