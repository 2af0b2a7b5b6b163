package job

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/zero"
)

// Rebase puts another image below an overlay, which goes on to read the same:
// what differs is copied into the overlay first.

// RebaseOptions say how an overlay gets another backing file.
type RebaseOptions struct {
	// Name and Format are what the overlay is to say of its new backing file;
	// no name: it has none any more.
	Name, Format string
	// Unsafe changes what the overlay says and nothing else: it is for the
	// caller to know that the new backing file holds what the old one did.
	Unsafe bool
	// Same, if not nil, tells whether two images are the same one, opened
	// twice: what such a one decides on both sides is not read. An image is
	// always the same as itself.
	Same func(a, b *block.Image) bool
	// ZerosAsData writes zeros as data where the old backing file has room for
	// data, as qemu-img does.
	ZerosAsData bool
	// Workers is how many chunks are compared at a time, 0 for one for each
	// processor, at most 8.
	Workers int
	// Progress, if not nil, is told how many bytes of the overlay are done.
	Progress func(done, total int64)
}

// Rebase compares what img shows of the images below it with backing, which may
// be nil, copies what differs, and has img name its new backing file. Nobody
// may write any of the images meanwhile. It can be cancelled and repeated: until
// all is on disk, img names the old backing file. Afterwards img has to be
// closed and opened again.
func Rebase(ctx context.Context, img, backing *block.Image, o *RebaseOptions) error {
	if o == nil {
		o = &RebaseOptions{}
	}
	fail := func(err error) error {
		return &block.Error{Op: "rebase", Path: img.Path(), Format: img.Format(), Offset: -1, Err: err}
	}
	changer, ok := block.As[block.BackingChanger](img)
	switch {
	case !ok:
		return fail(block.Unsupportedf("images of format %s can't have a backing file", img.Format()))
	case !img.Writable():
		return fail(block.ErrReadOnly)
	case (backing == nil) != (o.Name == "") && !o.Unsafe:
		return fail(block.Invalidf("the new backing file %q and its content do not go together", o.Name))
	}
	if !o.Unsafe {
		r := &rebase{img: img, backing: backing, o: *o, cluster: clusterOf(img), same: map[[2]*block.Image]bool{}}
		r.chunk = max(compareChunk, largestCluster(img), largestCluster(backing))
		if err := r.run(ctx); err != nil {
			return err
		}
		// Before the overlay names another image, what that does not hold
		// must be on disk in the overlay.
		if err := img.Flush(); err != nil {
			return err
		}
	}
	if err := changer.ChangeBacking(o.Name, o.Format); err != nil {
		return fail(err)
	}
	return nil
}

// rebase is a running Rebase.
type rebase struct {
	img, backing *block.Image
	o            RebaseOptions
	cluster      int64 // of the overlay, bytes
	chunk        int64 // what is compared at a time, bytes
	same         map[[2]*block.Image]bool

	mu   sync.Mutex
	done int64
}

// turn is a number of spans, one behind the other in a chunk, to be compared, and
// written when their turn has come: what is copied lies in the overlay in the order
// of the disk.
type turn struct {
	spans      []span
	come, over chan struct{}
}

func (t *turn) off() int64 { return t.spans[0].off }

func (t *turn) len() int64 {
	last := t.spans[len(t.spans)-1]
	return last.off + last.n - t.off()
}

// takes reports whether s goes on where t ends, in the same chunk.
func (t *turn) takes(s span, chunk int64) bool {
	return t.off()+t.len() == s.off && t.off()/chunk == s.off/chunk
}

// run compares all that the overlay does not hold itself.
func (r *rebase) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	todo := make(chan turn)
	var wg sync.WaitGroup
	for range workers(r.o.Workers) {
		wg.Go(func() {
			a, b := make([]byte, r.chunk), make([]byte, r.chunk)
			for t := range todo {
				if err := r.settle(ctx, t, a[:t.len()], b[:t.len()]); err != nil {
					stop(err)
				}
				close(t.over)
				r.progress(t.len())
			}
		})
	}
	r.hand(ctx, stop, todo)
	close(todo)
	wg.Wait()
	return context.Cause(ctx)
}

// hand hands the turns out.
func (r *rebase) hand(ctx context.Context, stop func(error), todo chan<- turn) {
	come := make(chan struct{})
	close(come)
	var t turn
	end := func() {
		if len(t.spans) > 0 {
			t.come, t.over = come, make(chan struct{})
			todo <- t
			come, t = t.over, turn{}
		}
	}
	for s, err := range r.spans(ctx) {
		if err != nil {
			stop(err)
		}
		if ctx.Err() != nil {
			return
		}
		if s.idle() {
			r.progress(s.n)
			continue
		}
		if len(t.spans) > 0 && !t.takes(s, r.chunk) {
			end()
		}
		t.spans = append(t.spans, s)
	}
	end()
}

func (r *rebase) progress(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done += n
	if r.o.Progress != nil {
		r.o.Progress(r.done, r.img.Size())
	}
}

// spans yields the disk in order: readA stands for what is below now, readB for
// what is to be. A span that has to be read lies within a chunk.
func (r *rebase) spans(ctx context.Context) iter.Seq2[span, error] {
	return func(yield func(span, error) bool) {
		for off := int64(0); off < r.img.Size(); {
			if ctx.Err() != nil {
				yield(span{}, context.Cause(ctx))
				return
			}
			s, err := r.span(off)
			if !yield(s, err) || err != nil {
				return
			}
			off += s.n
		}
	}
}

// span returns the range from off on that is alike in what has to be read of
// both sides.
func (r *rebase) span(off int64) (span, error) {
	now, err := r.img.Locate(off, r.img.Size()-off)
	if err != nil {
		return span{}, err
	}
	s := span{off: off, n: now.Length}
	if now.Allocated && now.Depth == 0 {
		return s, nil
	}
	next, err := r.next(off, now.Length)
	if err != nil {
		return span{}, err
	}
	s.n = min(s.n, next.Length)
	if r.sameImage(now, next) {
		return s, nil
	}
	s.readA, s.readB = now.Kind != block.Zero, next.Kind != block.Zero
	if !s.idle() {
		s.n = min(s.n, r.chunk-off%r.chunk)
	}
	return s, nil
}

// next returns where the new backing image has the content from off on. Past
// its end there are zeros.
func (r *rebase) next(off, n int64) (block.Extent, error) {
	if r.backing == nil || off >= r.backing.Size() {
		return block.Extent{Start: off, Length: n, Kind: block.Zero}, nil
	}
	return r.backing.Locate(off, min(n, r.backing.Size()-off))
}

// sameImage reports whether the same image decides both before and after, and
// has the content in the same place.
func (r *rebase) sameImage(now, next block.Extent) bool {
	if !now.Allocated || !next.Allocated || now.Kind != next.Kind || now.Offset != next.Offset {
		return false
	}
	pair := [2]*block.Image{inChain(r.img, now.Depth), inChain(r.backing, next.Depth)}
	same, known := r.same[pair]
	if !known {
		same = pair[0] == pair[1] || r.o.Same != nil && r.o.Same(pair[0], pair[1])
		r.same[pair] = same
	}
	return same
}

func inChain(img *block.Image, depth int) *block.Image {
	for range depth {
		img = img.Backing()
	}
	return img
}

// settle compares spans and copies the clusters that differ into the overlay.
func (r *rebase) settle(ctx context.Context, t turn, a, b []byte) error {
	var err error
	for _, s := range t.spans {
		at := s.off - t.off()
		err = errors.Join(err, r.read(s, a[at:at+s.n], b[at:at+s.n]))
	}
	<-t.come
	if err != nil || ctx.Err() != nil {
		return err
	}
	return r.copyClusters(t.off(), a, b)
}

// read reads what a span shows now, and what it would show.
func (r *rebase) read(s span, a, b []byte) error {
	for _, side := range []struct {
		wanted bool
		img    *block.Image
		p      []byte
	}{{s.readA, r.img, a}, {s.readB, r.backing, b}} {
		if !side.wanted {
			clear(side.p)
		} else if err := side.img.ReadZeroFilled(side.p, s.off); err != nil {
			return err
		}
	}
	return nil
}

// What becomes of a cluster of the overlay.
type fate uint8

const (
	stays fate = iota
	becomesZero
	becomesData
)

// copyClusters writes those clusters of a that are not the same in b, in runs. A
// write of less would make the overlay read the rest of them itself.
func (r *rebase) copyClusters(off int64, a, b []byte) error {
	for len(a) > 0 {
		n, f := r.fateOf(off, a, b)
		for n < len(a) {
			k, next := r.fateOf(off+int64(n), a[n:], b[n:])
			if next != f {
				break
			}
			n += k
		}
		if f != stays {
			if err := r.copy(off, a[:n], f); err != nil {
				return err
			}
		}
		a, b, off = a[n:], b[n:], off+int64(n)
	}
	return nil
}

// fateOf returns what becomes of the cluster at off, and how much of it is in a.
func (r *rebase) fateOf(off int64, a, b []byte) (n int, f fate) {
	n = int(min(int64(len(a)), r.cluster-off%r.cluster))
	asData := r.o.ZerosAsData && r.img.Backing() != nil && off < r.img.Backing().Size()
	switch {
	case bytes.Equal(a[:n], b[:n]):
		return n, stays
	case !asData && zero.Is(a[:n]):
		return n, becomesZero
	}
	return n, becomesData
}

// copy has the overlay hold p itself.
func (r *rebase) copy(off int64, p []byte, f fate) error {
	if f == becomesZero {
		err := r.img.WriteZeroes(off, int64(len(p)), block.OwnZeroes)
		if err != nil {
			return err
		}
		// An overlay with nothing below it may take the zeros for granted.
		if held, err := r.holds(off, int64(len(p))); held || err != nil {
			return err
		}
	}
	_, err := r.img.WriteAt(p, off)
	return err
}

// holds reports whether the overlay itself decides all of a range.
func (r *rebase) holds(off, n int64) (bool, error) {
	for end := off + n; off < end; {
		e, err := r.img.Locate(off, end-off)
		if err != nil || !e.Allocated || e.Depth > 0 {
			return false, err
		}
		off = e.End()
	}
	return true, nil
}
