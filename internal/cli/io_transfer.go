package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/diskimg/diskimg/block"
)

// This file is the commands of qemu-io that move data.

// maxTransfer is the most that one request moves, in bytes: what fits into 31
// bits in whole sectors.
const (
	maxTransfer = 1<<31 - 512
	sector      = 512
)

// defaultPattern fills what is written without a pattern.
const defaultPattern = 0xcd

func ioTransferWords() []ioWord {
	return []ioWord{
		{name: "read", alias: "r", args: "[-abCqv] [-P pattern [-s off] [-l len]] off len", summary: "reads a number of bytes at a specified offset",
			about: readAbout, min: 2, max: -1, file: true, run: (*ioSession).read},
		{name: "readv", args: "[-Cqv] [-P pattern] off len [len..]", summary: "reads a number of bytes at a specified offset",
			about: "As read, of the sum of the lengths." + readFlags, min: 2, max: -1, file: true, run: (*ioSession).readv},
		{name: "write", alias: "w", args: "[-bcCfnquz] [-P pattern | -s source_file] off len", summary: "writes a number of bytes at a specified offset",
			about: writeAbout, min: 2, max: -1, file: true, write: true, run: (*ioSession).write},
		{name: "writev", args: "[-Cfq] [-P pattern] off len [len..]", summary: "writes a number of bytes at a specified offset",
			about: "As write, of the sum of the lengths." + writeFlags, min: 2, max: -1, file: true, write: true, run: (*ioSession).writev},
		{name: "aio_read", args: "[-Ciqv] [-P pattern] off len [len..]", summary: "asynchronously reads a number of bytes",
			about: "As readv, but the next command does not wait for it; aio_flush does. The command\nhas done its part when it has asked." +
				readFlags + "\n-i   send a request that can't be", min: 2, max: -1, file: true, run: (*ioSession).aioRead},
		{name: "aio_write", args: "[-Cfiquz] [-P pattern] off len [len..]", summary: "asynchronously writes a number of bytes",
			about: "As writev, but the next command does not wait for it; aio_flush does. The command\nhas done its part when it has asked." +
				writeFlags + "\n-z   write zeros\n-u   with -z: may give the space back\n-i   send a request that can't be",
			min: 2, max: -1, file: true, write: true, run: (*ioSession).aioWrite},
		{name: "aio_flush", summary: "completes all outstanding aio requests", file: true, run: (*ioSession).aioFlush},
		{name: "discard", alias: "d", args: "[-Cq] off len", summary: "discards a number of bytes at a specified offset",
			about: "Tells that the content is no longer needed.\n-C   print numbers only\n-q   print nothing",
			min:   2, max: -1, file: true, write: true, run: (*ioSession).discard},
	}
}

const (
	readFlags  = "\n-P n compare what is read with bytes n\n-v   dump it\n-C   print numbers only\n-q   print nothing"
	readAbout  = "Reads len bytes at off." + readFlags + "\n-s n with -P: compare from byte n on\n-l n with -P: compare n bytes\n-b   read the saved state of a machine in place of its disk"
	writeFlags = "\n-P n fill with bytes n in place of 0xcd\n-f   return when it is on disk\n-C   print numbers only\n-q   print nothing"
	writeAbout = "Writes len bytes at off." + writeFlags + "\n-s f fill with what is in file f, again and again\n-z   write zeros\n-u   with -z: may give the space back\n" +
		"-n   with -z: fail rather than write them as data\n-c   write compressed\n-b   write the saved state of a machine in place of its disk"
)

// transfer is one request as it is asked for.
type transfer struct {
	vm, statistics, quiet, dump, fua, zero, unmap, noFallback, compressed, invalid bool

	pattern       int // -1: none
	source        string
	skip, checked int64 // the part of what is read that the pattern is for
	skips, checks bool

	off, length int64
}

// parse reads the options of a command.
func parseTransfer(words []string, letters string) (*transfer, []string, error) {
	t := &transfer{pattern: -1}
	rest, err := ioFlags(words, letters, t.flag)
	return t, rest, err
}

func (t *transfer) flag(flag byte, value string) (err error) {
	switch flag {
	case 'P':
		n, perr := strconv.ParseUint(value, 0, 8)
		if perr != nil {
			return saysf("%s is not a valid pattern byte", value)
		}
		t.pattern = int(n)
	case 's':
		t.source, t.skips = value, true
	case 'l':
		t.checks = true
		t.checked, err = ioSize(value)
	default:
		t.mark(flag)
	}
	return err
}

func (t *transfer) mark(flag byte) {
	flags := map[byte]*bool{'b': &t.vm, 'C': &t.statistics, 'q': &t.quiet, 'v': &t.dump, 'f': &t.fua, 'z': &t.zero,
		'u': &t.unmap, 'n': &t.noFallback, 'c': &t.compressed, 'i': &t.invalid}
	if p := flags[flag]; p != nil {
		*p = true
	}
}

// one reads "off len".
func (t *transfer) one(args []string, max int64, except string) (err error) {
	if len(args) != 2 {
		return errIOUsage
	}
	if t.off, err = ioSize(args[0]); err != nil {
		return err
	}
	if t.length, err = ioSize(args[1]); err != nil {
		return err
	}
	if t.length > max {
		return saysf("length cannot exceed %d%s, given %s", int64(maxTransfer), except, args[1])
	}
	return nil
}

// many reads "off len [len..]".
func (t *transfer) many(args []string) (err error) {
	if len(args) < 2 {
		return errIOUsage
	}
	if t.off, err = ioSize(args[0]); err != nil {
		return err
	}
	for _, arg := range args[1:] {
		n, err := ioSize(arg)
		switch {
		case err != nil:
			return err
		case n > maxTransfer:
			return saysf("Argument '%s' exceeds maximum size %d", arg, int64(maxTransfer))
		case n > maxTransfer-t.length:
			return saysf("The total number of bytes exceed the maximum size %d", int64(maxTransfer))
		}
		t.length += n
	}
	return nil
}

// within says whether the request lies within the disk.
func (s *ioSession) within(t *transfer) error {
	if s.gone {
		return errGone
	}
	if size := s.img.Size(); t.off > size || t.length > size-t.off {
		return block.Errorf(block.ErrBounds, "%d bytes at %d lie beyond the end of a disk of %d bytes", t.length, t.off, size)
	}
	return nil
}

func (s *ioSession) read(words []string) error {
	t, args, err := parseTransfer(words, "bCl:pP:qs:v")
	if err != nil {
		return err
	}
	if t.skips {
		if t.skip, err = ioSize(t.source); err != nil {
			return err
		}
	}
	if err := t.one(args, maxTransfer, ""); err != nil {
		return err
	}
	if t.pattern < 0 && (t.skips || t.checks) {
		return errIOUsage
	}
	if !t.checks {
		t.checked = t.length - t.skip
	}
	if t.checked < 0 || t.skip > t.length-t.checked {
		return saysf("pattern verification range exceeds end of read data")
	}
	if t.vm {
		if err := t.sectors(); err != nil {
			return err
		}
	}
	return s.readNow("read", t)
}

func (s *ioSession) readv(words []string) error {
	t, args, err := parseTransfer(words, "CP:qv")
	if err == nil {
		err = t.many(args)
	}
	if err != nil {
		return err
	}
	t.checked = t.length
	return s.readNow("readv", t)
}

func (s *ioSession) readNow(name string, t *transfer) error {
	p := make([]byte, t.length)
	begin := time.Now()
	err := s.fetch(t, p)
	took := time.Since(begin)
	s.collect()
	if err != nil {
		return saysf("%s failed: %s", name, s.cause(err))
	}
	if !s.show(t, p, took) {
		return errIOSaid
	}
	return nil
}

// fetch reads what is asked for.
func (s *ioSession) fetch(t *transfer, p []byte) error {
	if s.gone {
		return errGone
	}
	if t.vm {
		return s.readState(p, t.off)
	}
	if err := s.within(t); err != nil || len(p) == 0 {
		return err
	}
	_, err := s.img.ReadAt(p, t.off)
	return err
}

// show prints what was read and reports whether it is what it should be.
func (s *ioSession) show(t *transfer, p []byte, took time.Duration) bool {
	ok := true
	if t.pattern >= 0 {
		part := p[t.skip : t.skip+t.checked]
		if ok = bytes.Count(part, []byte{byte(t.pattern)}) == len(part); !ok {
			fmt.Fprintf(s.out, "Pattern verification failed at offset %d, %d bytes\n", t.off+t.skip, t.checked)
		}
	}
	if t.quiet {
		return ok
	}
	if t.dump {
		dumpHex(s.out, p, t.off)
	}
	t.report(s.out, "read", took)
	return ok
}

func (s *ioSession) write(words []string) error {
	t, args, err := parseTransfer(words, "bcCfnpP:qs:uz")
	if err == nil {
		err = t.checkWrite()
	}
	if err != nil {
		return err
	}
	limit := int64(maxTransfer)
	if t.noFallback {
		limit = 1<<63 - 1
	}
	if err := t.one(args, limit, " without -n"); err != nil {
		return err
	}
	if t.vm || t.compressed {
		if err := t.sectors(); err != nil {
			return err
		}
	}
	return s.writeNow("write", t)
}

// sectors makes sure that whole sectors are asked for.
func (t *transfer) sectors() error {
	switch {
	case t.off%sector != 0:
		return saysf("%d is not a sector-aligned value for 'offset'", t.off)
	case t.length%sector != 0:
		return saysf("%d is not a sector-aligned value for 'count'", t.length)
	}
	return nil
}

// checkWrite finds options that don't go together.
func (t *transfer) checkWrite() error {
	fills := 0
	for _, given := range []bool{t.zero, t.pattern >= 0, t.skips} {
		if given {
			fills++
		}
	}
	switch {
	case t.vm && t.zero:
		return saysf("-b and -z cannot be specified at the same time")
	case t.fua && (t.vm || t.compressed):
		return saysf("-f and -b or -c cannot be specified at the same time")
	case t.noFallback && !t.zero:
		return saysf("-n requires -z to be specified")
	case t.unmap && !t.zero:
		return saysf("-u requires -z to be specified")
	case fills > 1:
		return saysf("Only one of -z, -P, and -s can be specified at the same time")
	}
	return nil
}

func (s *ioSession) writev(words []string) error {
	t, args, err := parseTransfer(words, "CfqP:")
	if err == nil {
		err = t.many(args)
	}
	if err != nil {
		return err
	}
	return s.writeNow("writev", t)
}

func (s *ioSession) writeNow(name string, t *transfer) error {
	p, err := t.content()
	if err != nil {
		return err
	}
	begin := time.Now()
	err = s.store(t, p)
	took := time.Since(begin)
	s.collect()
	if err != nil {
		return saysf("%s failed: %s", name, s.cause(err))
	}
	t.report(s.out, "wrote", took)
	return nil
}

// content makes what is to be written.
func (t *transfer) content() ([]byte, error) {
	switch {
	case t.zero:
		return nil, nil
	case t.source != "":
		return t.fromFile()
	case t.pattern < 0:
		return bytes.Repeat([]byte{defaultPattern}, int(t.length)), nil
	}
	return bytes.Repeat([]byte{byte(t.pattern)}, int(t.length)), nil
}

// fromFile repeats what is in a file.
func (t *transfer) fromFile() ([]byte, error) {
	p, err := os.ReadFile(t.source)
	var pathError *fs.PathError
	switch {
	case errors.As(err, &pathError):
		return nil, ioComplains(t.source + ": " + ioCause(pathError.Err))
	case err != nil:
		return nil, err
	case len(p) == 0:
		return nil, ioComplains(t.source + ": file is empty")
	}
	return bytes.Repeat(p, int(t.length)/len(p)+1)[:t.length], nil
}

// store writes what is asked for.
func (s *ioSession) store(t *transfer, p []byte) (err error) {
	if s.gone {
		return errGone
	}
	if err := s.within(t); err != nil && !t.vm {
		return err
	}
	switch {
	case t.vm:
		err = s.writeState(p, t.off)
	case t.zero:
		err = s.img.WriteZeroes(t.off, t.length, t.zeroFlags())
	case t.compressed:
		err = s.img.WriteCompressed(p, t.off)
	default:
		_, err = s.img.WriteAt(p, t.off)
	}
	if err == nil && (t.fua || s.opened.writethrough()) {
		err = s.img.Flush()
	}
	return err
}

func (t *transfer) zeroFlags() (flags block.ZeroFlags) {
	if t.unmap {
		flags |= block.MayUnmap
	}
	if t.noFallback {
		flags |= block.NoFallback
	}
	return flags
}

func (s *ioSession) aioRead(words []string) error {
	t, args, err := parseTransfer(words, "CP:iqv")
	switch {
	case err != nil:
		return err
	case t.invalid:
		fmt.Fprintln(s.out, "injecting invalid read request")
		return nil
	}
	if err := t.many(args); err != nil {
		return err
	}
	t.checked = t.length
	p := make([]byte, t.length)
	s.launch(t.off, t.length, false, func() error { return s.fetch(t, p) }, func(took time.Duration, err error) {
		if err != nil {
			fmt.Fprintf(s.out, "readv failed: %s\n", s.cause(err))
			return
		}
		s.show(t, p, took)
	})
	return nil
}

func (s *ioSession) aioWrite(words []string) error {
	t, args, err := parseTransfer(words, "CfiP:quz")
	switch {
	case err != nil:
		return err
	case t.zero && len(args) != 2:
		return saysf("-z supports only a single length parameter")
	case t.unmap && !t.zero:
		return saysf("-u requires -z to be specified")
	case t.invalid:
		fmt.Fprintln(s.out, "injecting invalid write request")
		return nil
	}
	if t.zero {
		err = t.one(args, 1<<63-1, "")
	} else {
		err = t.many(args)
	}
	if err != nil {
		return err
	}
	p, err := t.content()
	if err != nil {
		return err
	}
	s.launch(t.off, t.length, true, func() error { return s.store(t, p) }, func(took time.Duration, err error) {
		if err != nil {
			fmt.Fprintf(s.out, "aio_write failed: %s\n", s.cause(err))
			return
		}
		t.report(s.out, "wrote", took)
	})
	return nil
}

func (s *ioSession) aioFlush([]string) error {
	s.settle()
	return nil
}

func (s *ioSession) discard(words []string) error {
	t, args, err := parseTransfer(words, "Cq")
	if err == nil {
		err = t.one(args, maxTransfer, "")
	}
	if err != nil {
		return err
	}
	begin := time.Now()
	err = s.within(t)
	if err == nil {
		err = s.img.Discard(t.off, t.length)
	}
	took := time.Since(begin)
	s.collect()
	if err != nil {
		return saysf("discard failed: %s", s.cause(err))
	}
	t.report(s.out, "discard", took)
	return nil
}
