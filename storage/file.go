package storage

// This file is the local file as a block.File, the part that is the same on
// all operating systems. A File never follows what is in it, retries what a
// signal interrupted, completes short writes, and reports a full disk as
// block.ErrNoSpace.

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/diskimg/diskimg/block"
)

// ErrNotRegular matches the error for a path that is neither a regular file
// nor a block device.
var ErrNotRegular = errors.New("not a regular file or block device")

// FileOptions say how a local file is opened. The zero value opens an existing
// file for reading only.
type FileOptions struct {
	Writable  bool // open for reading and writing
	Create    bool // make the file if there is none; implies Writable
	Exclusive bool // with Create: fail if there is a file already
	Truncate  bool // cut an existing file to length 0, unless another process uses it; implies Writable
	Sync      bool // each write is on stable storage when it returns
	// Mode holds the permission bits of a new file, before umask; 0 is 0644.
	Mode fs.FileMode

	sink bool // allow character devices
}

// kind is what a File has been opened on.
type kind uint8

const (
	regular kind = iota
	device       // a disk: its length is fixed
	sink         // a character device, which has no length
)

// File is a local file or block device. Its methods may be called
// concurrently, Close included.
type File struct {
	f        *os.File
	raw      syscall.RawConn
	name     string
	dev, ino uint64
	kind     kind
	writable bool

	can     ability
	length  atomic.Int64 // of a sink: what Truncate was told
	syncErr atomic.Pointer[error]

	lockMu sync.Mutex
	lock   LockMode // what is held
}

// The optional interfaces that a File has everywhere.
var (
	_ block.File           = (*File)(nil)
	_ block.HoleFinder     = (*File)(nil)
	_ block.AllocatedSizer = (*File)(nil)
)

// OpenFile opens the file or block device at path. It never blocks on a FIFO
// and refuses, with an error that matches ErrNotRegular, everything that is
// neither a regular file nor a block device. A nil o is the zero value.
func OpenFile(path string, o *FileOptions) (*File, error) {
	if o == nil {
		o = &FileOptions{}
	}
	return openFile(path, path, *o)
}

// CreateFile is OpenFile with Writable, Create and Truncate.
func CreateFile(path string, o *FileOptions) (*File, error) {
	var p FileOptions
	if o != nil {
		p = *o
	}
	p.Create, p.Truncate = true, true
	return openFile(path, path, p)
}

// openFile opens path under the name that messages are to use.
func openFile(path, name string, o FileOptions) (*File, error) {
	o.Writable = o.Writable || o.Create || o.Truncate
	if o.Mode == 0 {
		o.Mode = 0o644
	}
	// Before opening: to open a device can be to do something.
	if st, err := os.Stat(path); err == nil {
		if _, err := kindOf(st.Mode(), o.sink); err != nil {
			return nil, openError(name, err)
		}
	}
	osf, err := sysOpen(path, name, o)
	if err != nil {
		return nil, openError(name, err)
	}
	f, err := newFile(osf, name, o)
	if err == nil && o.Truncate {
		err = f.clear()
	}
	if err != nil {
		osf.Close()
		return nil, openError(name, err)
	}
	return f, nil
}

// newFile makes a File of an open one, after looking at what it is.
func newFile(osf *os.File, name string, o FileOptions) (*File, error) {
	st, err := osf.Stat()
	if err != nil {
		return nil, err
	}
	f := &File{f: osf, name: name, writable: o.Writable, lock: LockNone}
	if f.kind, err = kindOf(st.Mode(), o.sink); err != nil {
		return nil, err
	}
	if f.raw, err = osf.SyscallConn(); err != nil {
		return nil, err
	}
	if f.kind == device && st.Mode()&fs.ModeCharDevice != 0 {
		if _, err := f.size(); err != nil && !o.sink {
			return nil, block.Errorf(ErrNotRegular, "is a character device and not a disk")
		} else if err != nil {
			f.kind = sink
		}
	}
	f.dev, f.ino, err = fileID(osf, st)
	return f, err
}

// clear cuts the file to nothing, having made sure that no other process uses
// it in a way that excludes that.
func (f *File) clear() error {
	if f.kind != regular {
		return nil
	}
	if err := f.lockForReplacing(); err != nil {
		return err
	}
	defer f.Unlock()
	return f.Truncate(0)
}

// kindOf refuses what can't hold an image.
func kindOf(mode fs.FileMode, sinks bool) (kind, error) {
	switch {
	case mode.IsRegular():
		return regular, nil
	case mode.IsDir():
		return 0, block.Errorf(ErrNotRegular, "is a directory")
	case mode&fs.ModeCharDevice != 0 && rawDisks:
		return device, nil
	case mode&fs.ModeCharDevice != 0 && sinks:
		return sink, nil
	case mode&fs.ModeCharDevice != 0:
		return 0, block.Errorf(ErrNotRegular, "is a character device, not a regular file or block device")
	case mode&fs.ModeDevice != 0:
		return device, nil
	case mode&fs.ModeNamedPipe != 0:
		return 0, block.Errorf(ErrNotRegular, "is a pipe (FIFO), not a regular file or block device")
	case mode&fs.ModeSocket != 0:
		return 0, block.Errorf(ErrNotRegular, "is a socket, not a regular file or block device")
	}
	return 0, block.Errorf(ErrNotRegular, "is not a regular file or block device")
}

// openError gives err the shape "open PATH: cause".
func openError(name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	if errors.Is(err, syscall.EISDIR) {
		err = block.Errorf(ErrNotRegular, "%w", err)
	}
	return wrap("open", name, err)
}

// wrap makes a PathError of err and lets a full disk match block.ErrNoSpace.
func wrap(op, name string, err error) error {
	if isNoSpace(err) {
		err = block.Errorf(block.ErrNoSpace, "%w", err)
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// fail wraps an error that the system returned for this file.
func (f *File) fail(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return wrap(op, f.name, err)
}

// mayChange refuses a range that can't be changed.
func (f *File) mayChange(op string, off, n int64) error {
	switch {
	case !f.writable:
		return f.fail(op, block.ErrReadOnly)
	case off < 0 || n < 0 || off > math.MaxInt64-n:
		return f.fail(op, block.Invalidf("%d bytes at offset %d are not a range", n, off))
	}
	return nil
}

// Name returns the path that the file was opened by.
func (f *File) Name() string { return f.name }

// Writable reports whether the file was opened for writing.
func (f *File) Writable() bool { return f.writable }

// Device reports whether the file is a device: its length is fixed and what
// is on it need not be zero.
func (f *File) Device() bool { return f.kind != regular }

// ID returns what identifies the file on this machine: two Files with the same
// ID are the same file under whatever names. A block device is identified by
// its number, so that all nodes of it are one.
func (f *File) ID() (dev, ino uint64) { return f.dev, f.ino }

// SameFile reports whether other is the same file.
func (f *File) SameFile(other *File) bool {
	return other != nil && f.dev == other.dev && f.ino == other.ino
}

// ReadAt reads len(p) bytes at off, as io.ReaderAt says.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.f.ReadAt(p, off)
	if err != nil {
		err = f.fail("read", err)
	}
	return n, err
}

// WriteAt writes all of p at off or returns an error.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if !f.writable {
		return 0, f.fail("write", block.ErrReadOnly)
	}
	n, err := f.f.WriteAt(p, off)
	if err != nil {
		err = f.fail("write", err)
	}
	return n, err
}

// Size returns the length in bytes. A character device has none: it is what
// Truncate was told.
func (f *File) Size() (int64, error) {
	if f.kind == sink {
		return f.length.Load(), nil
	}
	n, err := f.size()
	return n, f.fail("size", err)
}

// ModTime implements block.ModTimer.
func (f *File) ModTime() (time.Time, error) {
	info, err := f.f.Stat()
	if err != nil {
		return time.Time{}, f.fail("stat", err)
	}
	return info.ModTime(), nil
}

// Truncate sets the length. On a device, which keeps its length, it only sees
// to it that size bytes have room.
func (f *File) Truncate(size int64) error {
	if err := f.mayChange("truncate", size, 0); err != nil {
		return err
	}
	switch f.kind {
	case sink:
		f.length.Store(size)
		return nil
	case device:
		return f.mustFit("truncate", size)
	}
	if size == 0 && f.isEmpty() {
		// ext4 takes a file that is cut to nothing for one whose content is
		// replaced, and has its closing wait until all of it is on disk.
		return nil
	}
	return f.fail("truncate", f.f.Truncate(size))
}

func (f *File) isEmpty() bool {
	n, err := f.size()
	return err == nil && n == 0
}

// mustFit refuses what lies past the end of a device.
func (f *File) mustFit(op string, end int64) error {
	have, err := f.Size()
	if err == nil && end > have {
		err = f.fail(op, block.Errorf(block.ErrNoSpace, "%d bytes do not fit on a device of %d bytes", end, have))
	}
	return err
}

// Sync returns when all that was written before would survive a power cut. A
// Sync that failed makes all later ones fail: the system forgets which writes
// it could not complete, so success could be told of none of them again.
func (f *File) Sync() error {
	if !f.writable || f.kind == sink {
		return nil
	}
	if e := f.syncErr.Load(); e != nil {
		return *e
	}
	err := f.fail("sync", f.sync())
	if err != nil && !errors.Is(err, fs.ErrClosed) {
		err = fmt.Errorf("%w (no later sync of this file can succeed)", err)
		f.syncErr.CompareAndSwap(nil, &err)
	}
	return err
}

// Close gives up all locks and closes the file. It does not sync.
func (f *File) Close() error {
	// A child that this program is just starting has the open file too, until
	// it executes, and the locks would last as long as that. What Unlock says
	// does not matter: the last to close the file takes the locks away.
	_ = f.Unlock()
	return f.fail("close", f.f.Close())
}

// control runs call on the open file, which can't be closed meanwhile.
func (f *File) control(call func(fd uintptr) error) error {
	var err error
	if closed := f.raw.Control(func(fd uintptr) { err = call(fd) }); closed != nil {
		return fs.ErrClosed
	}
	return err
}

// ability remembers what the file system has turned out not to be able to do,
// so that it is asked once.
// KeepSpace has no space given back to the file system from now on: PunchHole
// answers block.ErrUnsupported.
func (f *File) KeepSpace() { f.can.noPunch.Store(true) }

type ability struct {
	noSeek, noPunch, noZero, noReserve atomic.Bool
}
