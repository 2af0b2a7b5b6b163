package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/diskimg/diskimg/block"
)

// This file is how QEMU's programs tell of damage in the tables of an image: once,
// with all that is known, and then as an input/output error like any other.

// errGone is what QEMU says of an image that it has marked as corrupt: nothing more
// is done with it until it is opened again.
var errGone = failf("No medium found")

// tellDamage says what is wrong with an image.
func (sh *shell) tellDamage(format string, e *block.DamageError) {
	text := block.Brief(e.Error(), e)
	if e.Marked {
		fmt.Fprintf(sh.err, "%s: Marking image as corrupt: %s; further corruption events will be suppressed\n", format, text)
		return
	}
	fmt.Fprintf(sh.err, "%s: Image is corrupt: %s; further non-fatal corruption events will be suppressed\n", format, text)
}

// asDamage takes out of text, which words err, what damage err tells of, and says
// that on its own.
func (sh *shell) asDamage(text string, err error) string {
	var e *block.DamageError
	if !errors.As(err, &e) || sh.verb == nil {
		return text
	}
	if !sh.damaged {
		sh.damaged = true
		sh.tellDamage(formatOf(err), e)
	}
	cause := ioCause(err)
	switch sh.verb.name {
	case "compare":
		before, _, _ := strings.Cut(text, ": ")
		return before
	case "measure":
		return "Unable to get block status: " + cause
	case "dd":
		return "error while reading from input image file: " + cause
	case "resize":
		return "Failed to discard cropped clusters: " + cause
	case "amend":
		return "Failed to turn zero into data clusters: " + cause
	case "rebase":
		if e.Marked {
			return "error while reading image metadata: " + cause
		}
	}
	text = strings.Replace(text, "image is marked corrupt and can no longer be written: ", "", 1)
	return strings.Replace(text, block.Brief(e.Error(), e), cause, 1)
}

// formatOf returns the format of the image that err is about.
func formatOf(err error) string {
	var e *block.Error
	if errors.As(err, &e) {
		return e.Format
	}
	return ""
}
