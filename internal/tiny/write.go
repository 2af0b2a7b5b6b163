package tiny

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"

	"github.com/diskimg/diskimg/block"
)

// WriteAt writes cluster by cluster.
func (l *layer) WriteAt(p []byte, off int64) error {
	return l.each(off, int64(len(p)), func(c, in, n int64) error {
		part := p[:n]
		p = p[n:]
		return l.writeCluster(c, in, part)
	})
}

// WriteZeroes frees whole clusters where it may and writes zeros elsewhere.
func (l *layer) WriteZeroes(off, n int64, flags block.ZeroFlags) error {
	return l.each(off, n, func(c, in, n int64) error {
		entry := l.table[c].Load()
		whole := l.whole(c, in, n) || l.bug == ZeroWide
		if whole && l.bug == ZeroLost && entry == 0 {
			return nil
		}
		if whole && (flags&block.MayUnmap != 0 || !isData(entry)) {
			return l.replace(c, zeroEntry)
		}
		return l.writeCluster(c, in, make([]byte, n))
	})
}

// Discard frees whole clusters and leaves parts of clusters alone.
func (l *layer) Discard(off, n int64) error {
	return l.each(off, n, func(c, in, n int64) error {
		entry := l.table[c].Load()
		switch {
		case !l.whole(c, in, n) && l.bug != DiscardWide:
			return nil
		case l.bug == DoubleUse && entry > zeroEntry:
			l.free = append(l.free, hostOffset(entry))
			return nil
		case l.bug == DiscardBelow:
			return l.replace(c, 0)
		}
		return l.replace(c, zeroEntry)
	})
}

// WriteCompressed stores each cluster that gets smaller compressed.
func (l *layer) WriteCompressed(p []byte, off int64) error {
	if off%l.cluster != 0 || int64(len(p))%l.cluster != 0 && off+int64(len(p)) != l.size {
		return block.Invalidf("compressed write of %d bytes at %#x: not whole clusters", len(p), off)
	}
	return l.each(off, int64(len(p)), func(c, in, n int64) error {
		part := p[:n]
		p = p[n:]
		return l.packCluster(c, part)
	})
}

// each calls f for the part of each cluster that lies in a range: cluster,
// first byte in it, number of bytes.
func (l *layer) each(off, n int64, f func(c, in, n int64) error) error {
	if l.bug != NoLock {
		l.mu.Lock()
		defer l.mu.Unlock()
	}
	if l.broken != nil {
		return l.broken
	}
	for n > 0 {
		in := off % l.cluster
		k := min(n, l.cluster-in)
		if err := f(off/l.cluster, in, k); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// whole reports whether n bytes at in are all of cluster c that is in the disk.
func (l *layer) whole(c, in, n int64) bool {
	return in == 0 && n == min(l.cluster, l.size-c*l.cluster)
}

// writeCluster writes into a cluster in place, or into a new one together with
// what the old one held.
func (l *layer) writeCluster(c, in int64, p []byte) error {
	if entry := l.table[c].Load(); isData(entry) {
		_, err := l.file.WriteAt(p, hostOffset(entry)+in)
		return err
	}
	old, err := l.content(c)
	if err != nil {
		return err
	}
	copy(old[in:], p)
	if l.bug == LoseHead {
		clear(old[:in])
	}
	if l.bug == LoseTail {
		clear(old[in+int64(len(p)):])
	}
	host := l.allocate()
	if l.bug == StaleReuse {
		_, err = l.file.WriteAt(p, host+in)
	} else {
		_, err = l.file.WriteAt(old, host)
	}
	return l.publish(c, host, 0, err)
}

func (l *layer) packCluster(c int64, p []byte) error {
	full := make([]byte, l.cluster)
	copy(full, p)
	var out bytes.Buffer
	out.Write(make([]byte, 4))
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		return err
	}
	_, err = w.Write(full)
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	if int64(out.Len()) > l.cluster {
		return l.writeCluster(c, 0, p)
	}
	packed := out.Bytes()
	binary.LittleEndian.PutUint32(packed, uint32(len(packed)-4))
	if l.bug == ShortPacked {
		packed = packed[:len(packed)-16]
	}
	host := l.allocate()
	_, err = l.file.WriteAt(packed, host)
	return l.publish(c, host, packedFlag, err)
}

// allocate takes a free cluster.
func (l *layer) allocate() int64 {
	if n := len(l.free); n > 0 {
		host := l.free[n-1]
		l.free = l.free[:n-1]
		return host
	}
	l.end += l.cluster
	return l.end - l.cluster
}

// publish makes cluster c refer to host, unless writing to it has failed.
func (l *layer) publish(c, host int64, flag uint64, err error) error {
	if err != nil {
		l.free = append(l.free, host)
		return err
	}
	return l.replace(c, uint64(host)|flag)
}

// replace changes a table entry and frees the cluster that it referred to.
func (l *layer) replace(c int64, entry uint64) error {
	old := l.table[c].Load()
	if old == entry {
		return nil
	}
	var raw [8]byte
	binary.LittleEndian.PutUint64(raw[:], entry)
	if l.bug != ForgetTable {
		if _, err := l.file.WriteAt(raw[:], headerSize+8*c); err != nil && l.bug != IgnoreWrite {
			l.broken = block.Errorf(block.ErrBroken, "table entry %d: %w", c, err)
			return l.broken
		}
	}
	if l.bug != NoPin {
		l.pins.Lock()
		defer l.pins.Unlock()
	}
	l.table[c].Store(entry)
	if old > zeroEntry {
		l.free = append(l.free, hostOffset(old))
	}
	return nil
}

// Flush syncs the file.
func (l *layer) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return l.broken
	}
	err := l.file.Sync()
	if err == nil || l.bug == IgnoreSync {
		return nil
	}
	if l.bug == ForgiveSync {
		return err
	}
	l.broken = block.Errorf(block.ErrBroken, "sync: %w", err)
	return l.broken
}

// Close flushes and closes.
func (l *layer) Close() error {
	var err error
	if l.writable {
		err = l.Flush()
	}
	if l.backing != nil {
		err = errors.Join(err, l.backing.Close())
	}
	return errors.Join(err, l.file.Close())
}
