package model

import (
	"slices"
	"time"
)

// shrinkTime bounds how long a failed sequence is worked on.
const shrinkTime = 20 * time.Second

// shrink makes a sequence that fails simpler while it fails, and returns it with
// its error. What it fails with may change on the way.
func (p plan) shrink(seq Sequence, err error, run func(Sequence) error) (Sequence, error) {
	sh := &shrinker{plan: p, best: seq, err: err, run: run, end: time.Now().Add(shrinkTime)}
	for again := true; again; {
		again = sh.dropOps()
		again = sh.dropBase() || again
		again = sh.simplifyOps() || again
	}
	return sh.best, sh.err
}

type shrinker struct {
	plan
	best Sequence
	err  error
	run  func(Sequence) error
	end  time.Time
}

// try keeps a sequence if it fails as well.
func (sh *shrinker) try(s Sequence) bool {
	if time.Now().After(sh.end) {
		return false
	}
	err := sh.run(s)
	if err == nil {
		return false
	}
	sh.best, sh.err = s, err
	return true
}

// dropOps leaves out runs of operations, long ones first.
func (sh *shrinker) dropOps() (done bool) {
	for n := max(1, len(sh.best.Ops)/2); n > 0; n /= 2 {
		for i := 0; i+n <= len(sh.best.Ops); {
			s := sh.best
			s.Ops = slices.Delete(slices.Clone(s.Ops), i, i+n)
			if sh.try(s) {
				done = true
			} else {
				i += n
			}
		}
	}
	return done
}

func (sh *shrinker) dropBase() bool {
	s := sh.best
	s.Base = -1
	return sh.best.Base >= 0 && sh.try(s)
}

// simplifyOps makes operations plainer and shorter, one at a time.
func (sh *shrinker) simplifyOps() (done bool) {
	for i, o := range sh.best.Ops {
		if a, ok := sh.action(o.Action); !ok || a.Rigid {
			continue
		}
		for _, simpler := range simplifications {
			for {
				s := sh.best
				s.Ops = slices.Clone(s.Ops)
				simpler(&s.Ops[i], s.Cluster)
				if s.Ops[i] == sh.best.Ops[i] || !sh.try(s) {
					break
				}
				done = true
			}
		}
	}
	return done
}

// simplifications are ways to make an operation simpler. Each comes to an end
// when it is used again and again.
var simplifications = []func(o *Op, cluster int64){
	func(o *Op, _ int64) {
		if o.Fill != "" {
			o.Fill = Stamp
		}
	},
	func(o *Op, _ int64) { o.Unmap = false },
	func(o *Op, cluster int64) { // whole clusters
		end := o.Off + o.Len
		o.Off -= o.Off % cluster
		o.Len = max(o.Len, (end-o.Off)/cluster*cluster)
	},
	func(o *Op, _ int64) { // whole sectors
		end := o.Off + o.Len
		o.Off -= o.Off % sector
		o.Len = max(min(o.Len, 1), (end-o.Off)/sector*sector)
	},
	func(o *Op, cluster int64) { // half as long, but clusters stay clusters
		switch {
		case o.Len >= 2*cluster:
			o.Len = o.Len / 2 / cluster * cluster
		case o.Len%cluster != 0:
			o.Len = max(1, o.Len/2)
		}
	},
}
