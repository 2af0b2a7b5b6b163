package raw

import "github.com/diskimg/diskimg/block"

// The guard of a disk whose format was probed: a write to the head passes only
// if the head would still be taken for raw. All that changes the head goes
// through guarded, one at a time, so that no two writes can make together what
// neither makes alone.

// headSize is at least what a probe of formats looks at.
const headSize = 4 << 10

// guarded makes the write of a range that begins at off. change does to a copy
// of the bytes from off to the end of the head what the write will do.
func (d *disk) guarded(off int64, change func(head []byte), write func() error) error {
	d.unsynced.Store(true)
	if d.looksLike == nil || off >= headSize {
		return write()
	}
	d.head.Lock()
	defer d.head.Unlock()
	head := make([]byte, min(headSize, d.Size()))
	if err := block.ReadFull(d.f, head, d.offset); err != nil {
		return err
	}
	change(head[off:])
	if format := d.looksLike(head); format != "" {
		return block.Errorf(block.ErrRefused,
			"the format of the image was guessed to be raw, and with this write it would be taken for %s; name the format to allow it", format)
	}
	return write()
}

// zeroed is the change that writing n zeros makes.
func zeroed(n int64) func([]byte) {
	return func(head []byte) { clear(head[:min(n, int64(len(head)))]) }
}
