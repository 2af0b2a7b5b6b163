package blocktest

import "github.com/diskimg/diskimg/block"

// IO names one operation on a File.
type IO string

// The operations that a Hook sees.
const (
	Read     IO = "read"
	Write    IO = "write"
	Zero     IO = "write zeroes"
	Punch    IO = "punch hole"
	Reserve  IO = "reserve"
	Truncate IO = "truncate"
	Sync     IO = "sync"
)

// A Hook is asked before each operation on a File. What it returns is what the
// operation returns, undone; on nil it is done.
type Hook func(op IO, off, n int64) error

// Wrap puts the hook before all operations of f but Size, NextData,
// AllocatedSize and Close.
func (h Hook) Wrap(f block.File) block.File { return &hooked{f, h} }

type hooked struct {
	file block.File
	ask  Hook
}

func (h *hooked) ReadAt(p []byte, off int64) (int, error) {
	if err := h.ask(Read, off, int64(len(p))); err != nil {
		return 0, err
	}
	return h.file.ReadAt(p, off)
}

func (h *hooked) WriteAt(p []byte, off int64) (int, error) {
	if err := h.ask(Write, off, int64(len(p))); err != nil {
		return 0, err
	}
	return h.file.WriteAt(p, off)
}

func (h *hooked) Size() (int64, error) { return h.file.Size() }

func (h *hooked) Close() error { return h.file.Close() }

func (h *hooked) NextData(off int64) (start, end int64, err error) {
	return block.NextData(h.file, off)
}

func (h *hooked) AllocatedSize() (int64, error) {
	if a, ok := h.file.(block.AllocatedSizer); ok {
		return a.AllocatedSize()
	}
	return h.file.Size()
}

func (h *hooked) Truncate(size int64) error {
	if err := h.ask(Truncate, size, 0); err != nil {
		return err
	}
	return h.file.Truncate(size)
}

func (h *hooked) Sync() error {
	if err := h.ask(Sync, 0, 0); err != nil {
		return err
	}
	return h.file.Sync()
}

func (h *hooked) PunchHole(off, n int64) error {
	if err := h.ask(Punch, off, n); err != nil {
		return err
	}
	return block.PunchHole(h.file, off, n)
}

func (h *hooked) WriteZeroes(off, n int64) error {
	if err := h.ask(Zero, off, n); err != nil {
		return err
	}
	return block.WriteZeroes(h.file, off, n)
}

func (h *hooked) Reserve(off, n int64) error {
	if err := h.ask(Reserve, off, n); err != nil {
		return err
	}
	if r, ok := h.file.(block.Reserver); ok {
		return r.Reserve(off, n)
	}
	return block.ErrUnsupported
}
