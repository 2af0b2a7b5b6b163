// Package sentence turns errors into what people and scripts are used to read:
// the cause alone, with errors of the system worded as the C library does.
package sentence

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"github.com/diskimg/diskimg/block"
)

// Of returns the cause of err without the operation and the path around it.
func Of(err error) string {
	for {
		switch e := err.(type) {
		case *block.Error:
			err = e.Err
			continue
		case *fs.PathError:
			err = e.Err
			continue
		}
		return capitalize(err)
	}
}

// capitalize begins an error of the system with a capital letter, and leaves
// other texts as they are.
func capitalize(err error) string {
	text := err.Error()
	var errno syscall.Errno
	if errors.As(err, &errno) && strings.HasSuffix(text, errno.Error()) {
		at := len(text) - len(errno.Error())
		text = text[:at] + strings.ToUpper(text[at:at+1]) + text[at+1:]
	}
	return text
}

// Error is err under another text.
type Error struct {
	Text string
	Err  error
}

func (e *Error) Error() string { return e.Text }

// Unwrap returns what the text was made from.
func (e *Error) Unwrap() error { return e.Err }
