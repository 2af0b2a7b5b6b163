package qcow2

import (
	"errors"
	"runtime"
	"sync/atomic"

	"github.com/diskimg/diskimg/block"
)

// A check runs on all cores: shares of the L2 tables are looked at side by side,
// each by a checker of its own that gives up at the first thing that is wrong.
// Such a share is looked at once more by the checker itself, so that it alone
// reports, and in the order of the file.

// shareBytes is how much of the L2 tables is a share.
const shareBytes = 1 << 20

// errUnsound ends the look at a share in which something is wrong.
var errUnsound = errors.New("something is wrong in a share of the tables")

// share is what one goroutine looks at.
type share struct {
	k        *checker
	from, to int
	err      error
	done     chan struct{}
}

// inShares calls f for all of n tables, side by side where there are many. What f
// counts it counts in its checker; refs says that it counts references.
func (k *checker) inShares(n int, refs bool, f func(w *checker, from, to int) error) error {
	size := int(max(1, shareBytes>>k.d.geo.clusterBits))
	workers := runtime.GOMAXPROCS(0)
	if n <= size || workers == 1 {
		return f(k, 0, n)
	}
	var ended atomic.Bool
	w := k.sharing()
	shares := make(chan *share, workers-1)
	go func() {
		defer close(shares)
		for from := 0; from < n && !ended.Load(); from += size {
			s := &share{from: from, to: min(n, from+size), done: make(chan struct{})}
			s.start(w, refs, f)
			shares <- s
		}
	}()
	var err error
	for s := range shares {
		<-s.done
		if err == nil {
			err = k.take(s, refs, f)
			ended.Store(err != nil)
		}
	}
	return err
}

// sharing returns a checker for shares, of which each gets a copy. It reports
// nothing.
func (k *checker) sharing() checker {
	o := *k.o
	o.Report, o.Progress = nil, nil
	w := *k
	w.o, w.apart, w.res, w.misplaced, w.recent = &o, true, block.CheckResult{}, nil, nil
	return w
}

// start looks at a share with a copy of w. refs says that it counts references of
// its own.
func (s *share) start(w checker, refs bool, f func(w *checker, from, to int) error) {
	if s.k = &w; refs {
		w.refs = newRefMap()
	} else {
		w.refs = w.refs.view()
	}
	go func() {
		defer close(s.done)
		s.err = f(s.k, s.from, s.to)
	}()
}

// take adds what was found in a share to the rest.
func (k *checker) take(s *share, refs bool, f func(w *checker, from, to int) error) error {
	if s.err == errUnsound {
		return f(k, s.from, s.to)
	}
	if s.err != nil {
		return s.err
	}
	if refs {
		k.refs.merge(s.k.refs)
	}
	k.res.Allocated += s.k.res.Allocated
	k.res.Fragmented += s.k.res.Fragmented
	k.res.Compressed += s.k.res.Compressed
	if k.o.Progress != nil && refs {
		k.o.Progress(int64(s.to), int64(len(k.tables)))
	}
	return nil
}

// unsound is errUnsound if this is the checker of a share that has found something.
func (k *checker) unsound() error {
	if k.apart && k.res.Corruptions+k.res.Errors+k.res.Leaks > 0 {
		return errUnsound
	}
	return nil
}
