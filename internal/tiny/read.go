package tiny

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"io"

	"github.com/diskimg/diskimg/block"
)

// Resolve finds the run of clusters that are alike.
func (l *layer) Resolve(off, n int64) (block.Extent, error) {
	if l.bug == AllocatingRead {
		l.sink = make([]byte, n)
	}
	c := off / l.cluster
	first := l.table[c].Load()
	e := l.extent(first, off)
	for e.Length < n && l.continues(first, c, (e.End()-1)/l.cluster+1) {
		e.Length += l.cluster
	}
	e.Length = min(e.Length, n)
	return e, nil
}

// extent describes what is left of one cluster from off on.
func (l *layer) extent(entry uint64, off int64) block.Extent {
	in := off % l.cluster
	e := block.Extent{Start: off, Length: l.cluster - in, Allocated: entry != 0}
	switch {
	case isData(entry):
		e.Kind, e.File, e.Offset, e.HasOffset = block.Data, l.file, hostOffset(entry)+in, true
	case isPacked(entry):
		e.Kind, e.Offset, e.HasOffset, e.Compressed = block.Special, hostOffset(entry), true, true
	case entry == zeroEntry:
		e.Kind = block.Zero
	default:
		e.Kind = block.Below
	}
	return e
}

// continues reports whether cluster next is of one extent with cluster first.
func (l *layer) continues(entry uint64, first, next int64) bool {
	if next >= l.clusters() || isPacked(entry) {
		return false
	}
	e := l.table[next].Load()
	switch {
	case l.bug == WrongZero && entry == zeroEntry && next == first+1:
		return true
	case !isData(entry):
		return e == entry
	case l.bug == LongExtent:
		return isData(e)
	}
	return isData(e) && hostOffset(e)-hostOffset(entry) == (next-first)*l.cluster
}

// ReadSpecial inflates one cluster.
func (l *layer) ReadSpecial(e block.Extent, p []byte, off int64) error {
	c, err := l.unpack(e.Offset)
	if err != nil {
		return err
	}
	copy(p, c[off%l.cluster:])
	return nil
}

func (l *layer) unpack(host int64) ([]byte, error) {
	raw := make([]byte, l.cluster)
	if err := block.ReadFull(l.file, raw, host); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(raw)
	if int64(n) > l.cluster-4 {
		return nil, block.Corruptf("compressed cluster at %#x: length %d is beyond its end", host, n)
	}
	c := make([]byte, l.cluster)
	r := flate.NewReader(bytes.NewReader(raw[4 : 4+n]))
	if _, err := io.ReadFull(r, c); err != nil {
		return nil, block.Corruptf("compressed cluster at %#x: %w", host, err)
	}
	return c, nil
}

// content reads a whole cluster of the disk; past the end of the disk it is zero.
func (l *layer) content(c int64) ([]byte, error) {
	p := make([]byte, l.cluster)
	entry := l.table[c].Load()
	switch {
	case isData(entry):
		return p, block.ReadFull(l.file, p, hostOffset(entry))
	case isPacked(entry):
		return l.unpack(hostOffset(entry))
	case entry == 0 && l.backing != nil:
		return p, l.backing.ReadZeroFilled(p, c*l.cluster)
	}
	return p, nil
}

// Check compares the table with the file.
func (l *layer) Check(context.Context, block.CheckOptions) (r block.CheckResult, err error) {
	used := map[int64]bool{}
	for i := range l.table {
		host := hostOffset(l.table[i].Load())
		if host == 0 {
			continue
		}
		if used[host] || host%l.cluster != 0 || host < l.firstCluster() {
			r.Corruptions++
		}
		used[host] = true
		r.Allocated++
	}
	r.Clusters = l.clusters()
	if l.bug == LeakyCheck && r.Allocated > 0 {
		r.Leaks = 1
	}
	return r, nil
}
