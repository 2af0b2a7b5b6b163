package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/faultfile"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// Two handles of one image work on it in turns, as two hosts do, with all that
// can be done to an image: each invalidates what it has read and flushes what it
// has written. Both see one disk, and leave a sound image.
func TestInvalidate(t *testing.T) {
	for seed := uint64(1); seed <= 60 && !t.Failed(); seed++ {
		s := newScenario(t, seed)
		table, data := storage.NewMemory(), storage.NewMemory()
		if s.options.DataFile != "" {
			s.options.Data = data.Reopen()
		}
		if err := qcow2.Create(table.Reopen(), &s.options); err != nil {
			t.Fatal(err)
		}
		s.ballast(table)
		s.Open = func() (*block.Image, error) {
			o := &qcow2.OpenOptions{Writable: true, Policy: s.policy, Passphrase: passphrase, InactiveL2: s.wary}
			if s.options.DataFile != "" {
				o.Data = data.Reopen()
			}
			return qcow2.Open(table.Reopen(), o)
		}
		check := func(img *block.Image) error {
			return errors.Join(s.checkContent(img, s.Now()), checkNoCorruption(img, false))
		}
		err := s.TakeTurns(check)
		if err == nil {
			err = lookAgain(s.Open, check)
		}
		if err != nil {
			t.Errorf("seed %d: %v\n%+v", seed, err, s.options)
		}
	}
}

// lookAgain opens an image for check.
func lookAgain(open func() (*block.Image, error), check func(*block.Image) error) error {
	img, err := open()
	if err != nil {
		return err
	}
	return errors.Join(check(img), img.Close())
}

// Requests go on while an image is invalidated.
func TestInvalidateConcurrent(t *testing.T) {
	const size, cluster = 4 << 20, 4 << 10
	f := storage.NewMemory()
	if err := qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: size, ClusterSize: cluster}); err != nil {
		t.Fatal(err)
	}
	other := openBitmaps(t, f, true)
	img := openBitmaps(t, f, false)
	defer img.Close()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range int64(4) {
		wg.Go(func() {
			p := make([]byte, 3*cluster+100)
			for off := i * 1000; ; off = (off + 123_456) % (size - int64(len(p))) {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := img.ReadAt(p, off); err != nil {
					t.Error(err)
					return
				}
				if d, _ := block.As[block.Describer](img); i == 0 {
					if _, err := d.Describe(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	p := bytes.Repeat([]byte{1}, cluster)
	for off := int64(0); off < size; off += 8 * cluster {
		for i, write := range []func([]byte, int64) error{other.WriteCompressed, writeTo(other)} {
			if err := errors.Join(write(p, off+int64(i)*cluster), other.Flush(), img.Invalidate()); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, cluster)
			if _, err := img.ReadAt(got, off+int64(i)*cluster); err != nil || !bytes.Equal(got, p) {
				t.Fatalf("what the other has written at %#x is not there: %v", off, err)
			}
		}
	}
	close(stop)
	wg.Wait()
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}

func writeTo(img *block.Image) func([]byte, int64) error {
	return func(p []byte, off int64) error {
		_, err := img.WriteAt(p, off)
		return err
	}
}

// QEMU writes an encrypted image that we have open, and we see it, without the
// passphrase being asked for again; then we write on, and QEMU sees that.
func TestInvalidateAfterQEMU(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	args := append([]string{"create", "-q", "-f", "qcow2", "-o", "encrypt.format=luks,encrypt.iter-time=1,encrypt.key-secret=" + qemu.SecretID}, qemu.Secret...)
	if _, stderr, code := qemu.TryCreate(append(args, path, "4M")...); code != 0 {
		t.Fatal(stderr)
	}
	f, err := storage.OpenFile(path, &storage.FileOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	img, err := qcow2.Open(f, &qcow2.OpenOptions{Path: path, Writable: true, Passphrase: func() ([]byte, error) {
		asked++
		return []byte(qemu.Passphrase), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2<<20)
	if _, err := img.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	qemu.IO(t, path, "qcow2", "write -P 7 0 2M", "write -P 8 1M 64k")
	if err := img.Invalidate(); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{7}, len(got))
	copy(want[1<<20:], bytes.Repeat([]byte{8}, 64<<10))
	if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what QEMU has written is not there: %v", err)
	}
	if _, err := img.WriteAt(want, 2<<20); err != nil || asked != 1 {
		t.Errorf("%v; the passphrase was asked for %d times", err, asked)
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	qemu.Check(t, path, "qcow2")
	qemu.IO(t, path, "qcow2", "read -P 7 0 1M", "read -P 7 2M 1M", "read -P 8 3M 64k")
}

// What would lose something is refused, and an image that is another one now is
// not written.
func TestInvalidateRefused(t *testing.T) {
	f, img := newBitmaps(t)
	if _, err := img.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	if err := img.Invalidate(); !errors.Is(err, block.ErrInvalid) || errors.Is(err, block.ErrBroken) {
		t.Errorf("with a change that is not flushed: %v", err)
	}
	if err := errors.Join(img.Flush(), img.Invalidate()); err != nil {
		t.Error(err)
	}
	edit, _ := block.As[block.BitmapEditor](img)
	if err := errors.Join(edit.EditBitmaps(context.Background(), []block.BitmapEdit{{Name: "b"}}, nil), writeAndFlush(img, []byte{2}, 0)); err != nil {
		t.Fatal(err)
	}
	if err := img.Invalidate(); !errors.Is(err, block.ErrInvalid) || errors.Is(err, block.ErrBroken) {
		t.Errorf("with a bitmap that is not stored: %v", err)
	}
	maker, _ := block.As[block.Snapshotter](img)
	if _, err := maker.CreateSnapshot(context.Background(), block.Snapshot{Name: "s"}, nil); err != nil {
		t.Fatal(err)
	}
	opener, _ := block.As[block.SnapshotOpener](img)
	view, err := opener.OpenSnapshot("s")
	if err != nil {
		t.Fatal(err)
	}
	if err := view.Invalidate(); !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("a snapshot: %v", err)
	}
	if err := errors.Join(img.Close(), checkAgain(t, f)); err != nil {
		t.Fatal(err)
	}
	if err := img.Invalidate(); !errors.Is(err, block.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	img = openBitmaps(t, f, true)
	if err := qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: 1 << 20, ClusterSize: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := img.Invalidate(); !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("another image: %v", err)
	}
	if _, err := img.WriteAt([]byte{1}, 0); !errors.Is(err, block.ErrBroken) {
		t.Errorf("and a write to it: %v", err)
	}
	img.Close()
	if err := checkAgain(t, f); err != nil {
		t.Error(err)
	}
}

// checkAgain opens an image and checks it.
func checkAgain(t *testing.T, f *storage.Memory) error {
	t.Helper()
	img := openBitmaps(t, f, false)
	return errors.Join(checkNoCorruption(img, true), img.Close())
}

// A read fails while an image is invalidated: it reads on as before, is not
// written any more, and its file is as the other host has left it.
func TestInvalidateFaults(t *testing.T) {
	for n := 1; ; n++ {
		f := storage.NewMemory()
		must(t, qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: 1 << 20, ClusterSize: 4096}))
		first := openBitmaps(t, f, true)
		must(t, writeAndFlush(first, []byte{1}, 0))
		_, err := first.ReadAt(make([]byte, 1<<20), 0)
		must(t, errors.Join(err, first.Close()))
		plan := faultfile.NewPlan(faultfile.Fault{})
		img, err := qcow2.Open(plan.Wrap(f.Reopen()), &qcow2.OpenOptions{Writable: true})
		must(t, err)
		before := wholeDisk(t, img)
		other := openBitmaps(t, f, true)
		must(t, errors.Join(writeAndFlush(other, []byte{2}, 64<<10), other.Close()))
		plan.Set(faultfile.Fault{Kind: faultfile.Read, N: n})
		if err := img.Invalidate(); err == nil {
			must(t, img.Close())
			if n < 4 {
				t.Errorf("only %d reads", n)
			}
			break
		} else if !errors.Is(err, faultfile.EIO) {
			t.Errorf("read %d fails: %v", n, err)
		}
		if !bytes.Equal(wholeDisk(t, img), before) {
			t.Errorf("read %d fails, and the disk reads otherwise", n)
		}
		if _, err := img.WriteAt([]byte{3}, 0); !errors.Is(err, block.ErrBroken) {
			t.Errorf("read %d fails, and then a write: %v", n, err)
		}
		_ = img.Close()
		left := openBitmaps(t, f, false)
		if p := wholeDisk(t, left); p[0] != 1 || p[64<<10] != 2 {
			t.Errorf("read %d fails, and the file holds something else", n)
		}
		must(t, errors.Join(checkNoCorruption(left, true), left.Close()))
	}
}

// What an image was about to count down is somebody else's once it has been
// invalidated, and is not touched.
func TestInvalidateUnlinked(t *testing.T) {
	const cluster = 4 << 10
	f := storage.NewMemory()
	must(t, qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: 1 << 20, ClusterSize: cluster}))
	img := openBitmaps(t, f, true)
	must(t, writeTo(img)(bytes.Repeat([]byte{1}, 16*cluster), 0))
	s, _ := block.As[block.Snapshotter](img)
	_, err := s.CreateSnapshot(context.Background(), block.Snapshot{Name: "a"}, nil)
	must(t, err)

	other := openBitmaps(t, f, true)
	c, _ := block.As[block.Checker](other)
	_, err = c.Check(context.Background(), block.CheckOptions{FixLeaks: true})
	must(t, err)
	p := bytes.Repeat([]byte{2}, 64*cluster)
	must(t, errors.Join(writeTo(other)(p, 64*cluster), other.Close()))

	must(t, img.Invalidate())
	must(t, errors.Join(writeTo(img)(bytes.Repeat([]byte{3}, 16*cluster), 32*cluster), img.Close()))
	again := openBitmaps(t, f, false)
	got := make([]byte, len(p))
	_, err = again.ReadAt(got, 64*cluster)
	must(t, errors.Join(err, checkNoCorruption(again, false), again.Close()))
	if !bytes.Equal(got, p) {
		t.Error("what the other has written is gone")
	}
}

// An image whose snapshots can't be read once it has been invalidated can't be
// written, and is not marked corrupt for that.
func TestInvalidateUnreadableSnapshots(t *testing.T) {
	const cluster = 4 << 10
	f := storage.NewMemory()
	must(t, qcow2.Create(f.Reopen(), &qcow2.CreateOptions{Size: 1 << 20, ClusterSize: cluster}))
	img := openBitmaps(t, f, true)
	defer img.Close()
	must(t, errors.Join(writeTo(img)(bytes.Repeat([]byte{1}, 16*cluster), 0), img.Flush()))
	// One snapshot, behind the end of the file.
	field := binary.BigEndian.AppendUint32(nil, 1)
	_, err := f.WriteAt(binary.BigEndian.AppendUint64(field, 1<<30), 60)
	must(t, errors.Join(err, img.Invalidate()))
	before := contentOf(t, f)
	err = errors.Join(writeTo(img)([]byte("new"), 20*cluster), img.Flush())
	if !errors.Is(err, block.ErrBroken) {
		t.Errorf("a write: %v", err)
	}
	if !bytes.Equal(before, contentOf(t, f)) {
		t.Error("the file has changed")
	}
}
