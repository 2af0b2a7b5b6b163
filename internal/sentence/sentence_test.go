package sentence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/diskimg/diskimg/block"
)

func TestOf(t *testing.T) {
	_, missing := os.Open(filepath.Join(t.TempDir(), "missing"))
	for want, err := range map[string]error{
		"No such file or directory":                        missing,
		"Permission denied":                                &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES},
		"No space left on device":                          block.Errorf(block.ErrNoSpace, "%w", syscall.ENOSPC),
		"could not grow the file: No space left on device": fmt.Errorf("could not grow the file: %w", syscall.ENOSPC),
		"L2 table is broken":                               &block.Error{Op: "read", Path: "x", Offset: 1, Err: block.Corruptf("L2 table is broken")},
		"open x: permission denied, and more of it":        fmt.Errorf("%w, and more of it", &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}),
	} {
		if got := Of(err); got != want {
			t.Errorf("Of(%v) = %q, want %q", err, got, want)
		}
	}
}

func TestErrorKeepsItsCause(t *testing.T) {
	err := error(&Error{Text: "Could not open 'x'", Err: syscall.ENOENT})
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != "Could not open 'x'" {
		t.Errorf("got %v", err)
	}
}
