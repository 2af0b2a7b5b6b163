package qcow2

import "sync/atomic"

// pins tells when no running request can still refer to a cluster that has
// been unlinked. A request is counted in the epoch in which it began; an epoch
// ends only when the one before it has no requests left.
type pins struct {
	epoch  atomic.Uint32
	counts [2]struct {
		n atomic.Int64
		_ [56]byte // a cache line each
	}
}

// pin counts a request until unpin. It never waits.
func (p *pins) pin() uint32 {
	for {
		e := p.epoch.Load()
		p.counts[e&1].n.Add(1)
		if p.epoch.Load() == e {
			return e
		}
		p.counts[e&1].n.Add(-1)
	}
}

func (p *pins) unpin(e uint32) { p.counts[e&1].n.Add(-1) }

// advance begins a new epoch if the one before the current one has ended. The
// caller serialises calls.
func (p *pins) advance() {
	e := p.epoch.Load()
	if p.counts[(e+1)&1].n.Load() == 0 {
		p.epoch.Store(e + 1)
	}
}

// ended reports whether all requests that began in epoch e or before it are
// done.
func (p *pins) ended(e uint32) bool {
	now := p.epoch.Load()
	return now-e >= 2 || now-e == 1 && p.counts[e&1].n.Load() == 0
}
