package qcow2_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// recorder is a file that remembers which events came past.
type recorder struct {
	*storage.Memory
	mu   sync.Mutex
	list []string
}

func (r *recorder) Event(e block.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, string(e))
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list = nil
	return list
}

// has reports whether the events of want came past, in that order.
func has(got []string, want string) bool {
	for e := range strings.FieldsSeq(want) {
		i := slices.Index(got, e)
		if i < 0 {
			return false
		}
		got = got[i+1:]
	}
	return true
}

// Each operation comes past the events by which QEMU's blkdebug knows it.
func TestEvents(t *testing.T) {
	const cluster = 512
	f := &recorder{Memory: storage.NewMemory()}
	o := &qcow2.CreateOptions{Size: 64 << 10, ClusterSize: cluster, RefcountBits: 64}
	if err := qcow2.Create(f, o); err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(f, &qcow2.OpenOptions{Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	snapshots, _ := block.As[block.Snapshotter](img)
	empty, _ := block.As[block.Emptier](img)
	state, _ := block.As[block.VMStateKeeper](img)
	p := make([]byte, 64<<10)
	p[cluster] = 1
	for _, c := range []struct {
		name, want string
		do         func() error
	}{
		{"a first write", "cluster_alloc l2_alloc_write cluster_alloc write_aio", func() error { _, err := img.WriteAt(p[:cluster], 0); return err }},
		{"flush", "flush_to_os refblock_update_part l1_update", img.Flush},
		{"an L2 entry", "cluster_alloc write_aio flush_to_os refblock_update_part l2_update", func() error { return writeAndFlush(img, p[:cluster], cluster) }},
		{"in place", "write_aio", func() error { _, err := img.WriteAt(p[:cluster], 0); return err }},
		{"read", "read_aio", func() error { _, err := img.ReadAt(make([]byte, cluster), 0); return err }},
		{"compressed", "cluster_alloc_bytes write_compressed", func() error { return img.WriteCompressed(p[:cluster], 4*cluster) }},
		{"read compressed", "read_compressed", func() error { _, err := img.ReadAt(make([]byte, cluster), 4*cluster); return err }},
		{"a part of a compressed cluster", "cow_read read_compressed write_aio", func() error { _, err := img.WriteAt(p[:7], 4*cluster+7); return err }},
		{"discard", "cluster_free", func() error { return first(img.Discard(0, cluster), img.Flush()) }},
		{"snapshot", "", func() error {
			_, err := snapshots.CreateSnapshot(context.Background(), block.Snapshot{Name: "a"}, nil)
			return err
		}},
		{"VM state", "vmstate_save cluster_alloc write_aio", func() error { return state.WriteVMState(p[:cluster], 0) }},
		{"VM state again", "vmstate_save write_aio", func() error { return state.WriteVMState(p[:cluster], 0) }},
		{"reading VM state", "vmstate_load read_aio", func() error { return state.ReadVMState(make([]byte, cluster), 0) }},
		{"a shared table", "l2_alloc_cow_read l2_alloc_write write_aio", func() error { _, err := img.WriteAt(p[:cluster], cluster); return err }},
		{"many clusters", "refblock_alloc refblock_alloc_write refblock_alloc_hookup", func() error { return writeAndFlush(img, p, 0) }},
		{"empty", "empty_image_prepare l1_update cluster_free", empty.MakeEmpty},
	} {
		f.take()
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got := f.take()
		if !has(got, c.want) {
			t.Errorf("%s comes past %v; %s is missing", c.name, got, c.want)
		}
		for _, e := range got {
			if !block.Event(e).Known() {
				t.Errorf("%s comes past %q, which is no event", c.name, e)
			}
		}
	}
}

// Opening an image, and reading the first of its tables, comes past events too.
func TestEventsOfOpening(t *testing.T) {
	f := &recorder{Memory: storage.NewMemory()}
	if err := qcow2.Create(f, &qcow2.CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"reftable_load refblock_load", "l2_load read_aio"} {
		img, err := qcow2.Open(f, &qcow2.OpenOptions{Writable: i == 0})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			err = writeAndFlush(img, []byte{1}, 0)
		} else {
			_, err = img.ReadAt(make([]byte, 1), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := f.take(); !has(got, want) {
			t.Errorf("comes past %v; %s is missing", got, want)
		}
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
		f.take()
		f.Memory = f.Memory.Reopen()
	}
}

func writeAndFlush(img *block.Image, p []byte, off int64) error {
	_, err := img.WriteAt(p, off)
	return first(err, img.Flush())
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
