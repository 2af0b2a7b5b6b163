package cow

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/diskimg/diskimg/block"
)

// disk is a Space: what was there, and what there is of it in the new space.
type disk struct {
	old, new []byte
	writes   int
	events   []block.Event
	fail     block.Event // what follows this fails
	failed   bool
}

var errFailed = errors.New("failed")

func (d *disk) ReadOld(p []byte, off int64) error {
	copy(p, d.old[off:])
	return d.outcome()
}

func (d *disk) WriteNew(p []byte, off int64) error {
	d.writes++
	copy(d.new[off:], p)
	return d.outcome()
}

func (d *disk) Event(e block.Event) {
	d.events = append(d.events, e)
	d.failed = d.failed || e == d.fail
}

func (d *disk) outcome() error {
	if d.failed {
		return errFailed
	}
	return nil
}

func TestFill(t *testing.T) {
	const (
		read, copied, write = block.EventCOWRead, block.EventCOWWrite, block.EventWriteAIO
		size                = 3 * OneWrite
	)
	for _, c := range []struct {
		name         string
		from, off, n int64
		to           int64
		events       []block.Event
		writes       int
	}{
		{"all is written", 4096, 4096, 8192, 12288, []block.Event{write}, 1},
		{"old bytes before", 4096, 5000, 4096, 9096, []block.Event{read, write}, 1},
		{"old bytes behind", 4096, 4096, 100, 8192, []block.Event{read, write}, 1},
		{"both", 4096, 5000, 100, 8192, []block.Event{read, write}, 1},
		{"as much as is written at once", 0, 1, 1, OneWrite, []block.Event{read, write}, 1},
		{"more than that", 0, 1, 1, OneWrite + 1, []block.Event{read, copied, read, copied, write}, 3},
		{"much behind", 0, 0, 1, size, []block.Event{read, copied, read, copied, read, copied, write}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &disk{old: bytes.Repeat([]byte{'o'}, size), new: make([]byte, size)}
			if err := Fill(d, bytes.Repeat([]byte{'n'}, int(c.n)), c.off, c.from, c.to); err != nil {
				t.Fatal(err)
			}
			want := make([]byte, size)
			copy(want[c.from:c.to], d.old)
			copy(want[c.off:], bytes.Repeat([]byte{'n'}, int(c.n)))
			if !bytes.Equal(d.new, want) || d.writes != c.writes || !slices.Equal(d.events, c.events) {
				t.Errorf("%d writes, events %v", d.writes, d.events)
			}
			for _, e := range c.events {
				d.fail, d.failed = e, false
				if err := Fill(d, make([]byte, c.n), c.off, c.from, c.to); !errors.Is(err, errFailed) {
					t.Errorf("failing after %s: %v", e, err)
				}
			}
		})
	}
}
