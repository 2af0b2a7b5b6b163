// Package blocktest is the suite that every image format and every storage must
// pass, as testing/fstest is for file systems: TestImage for formats, TestFile
// for Files. It imports block and the test support packages only, so a format
// written elsewhere can run it too.
package blocktest
