package qed

import (
	"testing"

	"github.com/diskimg/diskimg/internal/mutant"
)

// Each ordering rule of doc.go is broken on purpose, by an edit of the line that
// keeps it, and the crash test has to notice.

var orderMutants = []mutant.Edit{
	{Name: "links before data", File: "flush.go",
		From: "if b.newData {", To: "if false {"},
	{Name: "a flush that does not wait for the disk", File: "flush.go",
		From: "must be on disk.\n\treturn d.sync()", To: "must be on disk.\n\treturn nil"},
	{Name: "published before it is written", File: "write.go",
		From: "err = d.fill(&a, p[:n], off)\n\tif err == nil {\n\t\terr = d.publish(&a)\n\t}",
		To:   "err = d.publish(&a)\n\tif err == nil {\n\t\t_ = d.Flush()\n\t\terr = d.fill(&a, p[:n], off)\n\t}"},
	{Name: "data linked as if it were on disk", File: "write.go",
		From: "d.newData = true", To: ""},
	{Name: "a table linked as if it were on disk", File: "tables.go",
		From: "d.newData = true", To: ""},
	{Name: "linked before the file has all of it", File: "write.go",
		From: "if err := d.reach(a.hostEnd()); err != nil {\n\t\t\treturn err\n\t\t}", To: ""},
	{Name: "need check never set", File: "alloc.go",
		From: "if err := d.needCheck(); err != nil {\n\t\treturn 0, err\n\t}", To: ""},
	{Name: "the file grows before need check is on disk", File: "needcheck.go",
		From: "if err := d.patchHeader(atFeatures, le64(d.hdr.features|featureNeedCheck)); err != nil {",
		To:   "if _, err := d.file.WriteAt(le64(d.hdr.features|featureNeedCheck), atFeatures); err != nil {"},
	{Name: "need check cleared before links are on disk", File: "flush.go",
		From: "if err := d.writePieces(b.links); err != nil {",
		To:   "if err := d.patchHeader(atFeatures, le64(d.hdr.features&^featureNeedCheck)); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tif err := d.writePieces(b.links); err != nil {"},
	{Name: "need check cleared before what was repaired is on disk", File: "check.go",
		From: "if err := d.sync(); err != nil {\n\t\t\treturn d.poison(err)\n\t\t}", To: ""},
	{Name: "the header names a backing file whose name is not on disk", File: "backing.go",
		From: "if err := d.patchHeader(off, []byte(name)); err != nil {",
		To:   "if _, err := d.file.WriteAt([]byte(name), off); err != nil {"},
	{Name: "the header names another backing file before all else is on disk", File: "backing.go",
		From: "if err := d.finish(); err != nil {\n\t\treturn err\n\t}", To: ""},
	{Name: "the old name is gone before the header names the new one", File: "backing.go",
		From: "if err := d.patchHeader(off, []byte(name)); err != nil {",
		To:   "if _, err := d.file.WriteAt(make([]byte, old.backingLength), int64(old.backingOffset)); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tif err := d.patchHeader(off, []byte(name)); err != nil {"},
	{Name: "space is given back before entries that lead there are gone", File: "empty.go",
		From: "may lead there.\n\tif err := d.sync(); err != nil {\n\t\treturn d.poison(err)\n\t}", To: "may lead there."},
	{Name: "need check cleared before the file is short", File: "empty.go",
		From: "must be short on disk.\n\tif err := d.sync(); err != nil {\n\t\treturn d.poison(err)\n\t}", To: "must be short on disk."},
	{Name: "need check not set before entries go", File: "empty.go",
		From: "if err := d.needCheck(); err != nil {\n\t\treturn err\n\t}", To: ""},
	{Name: "the disk is longer before what hides the backing image is on disk", File: "resize.go",
		From: "if err := d.Flush(); err != nil {\n\t\treturn err\n\t}", To: ""},
}

func TestOrderMutants(t *testing.T) {
	mutant.MustFail(t, orderMutants, "TestCrash", "-crash.states=100000")
}
