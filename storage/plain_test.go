package storage_test

import (
	"os"
	"testing"
)

// openPlain opens a file without this package.
func openPlain(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}
