package block

import (
	"errors"
	"fmt"
	"strings"
)

// The sentinels to branch on with errors.Is. Everything that fails in an image
// wraps one of these or an error of the operating system.
var (
	// ErrFormat: the file is not of the format it was opened as.
	ErrFormat = errors.New("not in this format")
	// ErrCorrupt: the file is of the format, and broken.
	ErrCorrupt = errors.New("image is corrupt")
	// ErrUnsupported: valid, but not something this program can do.
	ErrUnsupported = errors.New("not supported")
	// ErrRefused: possible, but the caller's policy forbids it.
	ErrRefused = errors.New("refused by policy")
	// ErrReadOnly: a write to an image that is open for reading only.
	ErrReadOnly = errors.New("image is read-only")
	// ErrLocked: another process uses the image in a way that excludes this one.
	ErrLocked = errors.New("image is locked")
	// ErrNoSpace: no room, in the file system or in the format's tables.
	ErrNoSpace = errors.New("no space left")
	// ErrPassphrase: the image is encrypted, and its passphrase was not given or
	// is another one.
	ErrPassphrase = errors.New("passphrase missing or wrong")
	// ErrBounds: a request that does not lie within the disk.
	ErrBounds = errors.New("beyond the end of the disk")
	// ErrInvalid: an argument or option that can't be.
	ErrInvalid = errors.New("invalid argument")
	// ErrClosed: the image has been closed.
	ErrClosed = errors.New("image is closed")
	// ErrBroken: a metadata write or a sync failed earlier, so what the file
	// holds is not known any more. The image can be read, never written.
	ErrBroken = errors.New("image can no longer be written after an earlier failure")
)

// Error is the typed error of this module, in the shape of fs.PathError.
type Error struct {
	Op     string // what was being done: "open", "read", "create" …
	Path   string // the image, as the caller named it; may be empty
	Format string // "qcow2", "raw" …; may be empty
	Offset int64  // guest or host offset in bytes; -1 when there is none
	Err    error  // the cause
}

// OpenError returns err as that of opening the image at path, unless it says
// already what was being done to which image.
func OpenError(path, format string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{Op: "open", Path: path, Format: format, Offset: -1, Err: err}
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Format != "" {
		b.WriteString(e.Format + ": ")
	}
	b.WriteString(e.Op)
	if e.Path != "" {
		b.WriteString(" " + e.Path)
	}
	if e.Offset >= 0 {
		fmt.Fprintf(&b, " at offset %#x", e.Offset)
	}
	b.WriteString(": " + e.Err.Error())
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// DamageError is corruption of the metadata of an image that was met in use.
type DamageError struct {
	Marked bool // the image has been marked as corrupt for it, and is written no more
	Err    error
}

func (e *DamageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }

// kindError is a sentence that belongs to a sentinel without repeating it.
type kindError struct {
	kind   error
	text   string
	err    error
	detail string // the end of text that Brief leaves out
}

func (e *kindError) Error() string { return e.text }

func (e *kindError) Unwrap() []error {
	if e.err == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.err}
}

// Errorf makes an error that reads as the formatted sentence and matches kind
// (one of the sentinels) as well as any error formatted with %w.
func Errorf(kind error, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &kindError{kind: kind, text: err.Error(), err: errors.Unwrap(err)}
}

// Detailf makes an error that reads as brief, a colon and the formatted detail.
func Detailf(kind error, brief, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &kindError{kind: kind, text: brief + ": " + err.Error(), err: errors.Unwrap(err), detail: ": " + err.Error()}
}

// Brief takes out of text, which was made from err, what Detailf has added: it
// leaves the words of the format's reference program alone, where that has some.
func Brief(text string, err error) string {
	var e *kindError
	for ; errors.As(err, &e); err = e.err {
		if e.detail != "" {
			return strings.Replace(text, e.text, strings.TrimSuffix(e.text, e.detail), 1)
		}
	}
	return text
}

// Corruptf is Errorf(ErrCorrupt, …).
func Corruptf(format string, args ...any) error { return Errorf(ErrCorrupt, format, args...) }

// Unsupportedf is Errorf(ErrUnsupported, …).
func Unsupportedf(format string, args ...any) error { return Errorf(ErrUnsupported, format, args...) }

// Invalidf is Errorf(ErrInvalid, …).
func Invalidf(format string, args ...any) error { return Errorf(ErrInvalid, format, args...) }

// FeatureError says which feature bits of an image are not known.
type FeatureError struct {
	Names []string // from the image's own feature table, or "Unknown incompatible feature: 0x…"
	Bits  uint64   // the unknown bits
}

func (e *FeatureError) Error() string {
	return "Unsupported qcow2 feature(s): " + strings.Join(e.Names, ", ")
}

// Is makes a FeatureError match ErrUnsupported.
func (e *FeatureError) Is(target error) bool { return target == ErrUnsupported }
