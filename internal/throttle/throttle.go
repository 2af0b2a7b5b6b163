// Package throttle slows requests down to limits that several disks can share,
// as the throttle groups of QEMU do (QEMU's docs/throttle.txt).
package throttle

import (
	"sync"
	"time"

	"github.com/diskimg/diskimg/block"
)

// Limit is how much may pass. The zero value limits nothing.
type Limit struct {
	Average int64 // a second
	Burst   int64 // a second, for as long as Seconds; 0 is none
	Seconds int64 // 0 is one
}

// Limits are those of a group. The total excludes those of reads and writes.
type Limits struct {
	Bytes, ReadBytes, WriteBytes Limit
	Ops, ReadOps, WriteOps       Limit
	// OpSize has a request of more bytes than this count as several; 0 is any
	// number.
	OpSize int64
}

// most is the largest value of a limit.
const most = 1_000_000_000_000_000

// Check finds limits that make no sense together.
func (l *Limits) Check() error {
	for _, three := range [][3]Limit{{l.Bytes, l.ReadBytes, l.WriteBytes}, {l.Ops, l.ReadOps, l.WriteOps}} {
		total, read, write := three[0], three[1], three[2]
		if total.Average != 0 && read.Average|write.Average != 0 || total.Burst != 0 && read.Burst|write.Burst != 0 {
			return block.Invalidf("bps/iops/max total values and read/write values cannot be used at the same time")
		}
	}
	if l.OpSize != 0 && l.Ops.Average == 0 && l.ReadOps.Average == 0 && l.WriteOps.Average == 0 {
		return block.Invalidf("iops size requires an iops value to be set")
	}
	for _, limit := range []Limit{l.Bytes, l.ReadBytes, l.WriteBytes, l.Ops, l.ReadOps, l.WriteOps} {
		if err := limit.check(); err != nil {
			return err
		}
	}
	return nil
}

func (l Limit) check() error {
	switch {
	case min(l.Average, l.Burst) < 0 || max(l.Average, l.Burst) > most:
		return block.Invalidf("bps/iops/max values must be within [0, %d]", int64(most))
	case l.Burst == 0 && l.Seconds > 1:
		return block.Invalidf("burst length set without burst rate")
	case l.Burst != 0 && l.Average == 0:
		return block.Invalidf("bps_max/iops_max require corresponding bps/iops values")
	case l.Burst != 0 && l.Burst < l.Average:
		return block.Invalidf("bps_max/iops_max cannot be lower than bps/iops")
	}
	return nil
}

// Group is the limits and how much of them is used. Methods may be called
// concurrently.
type Group struct {
	limits Limits

	mu      sync.Mutex
	buckets [6]bucket // in the order of Limits
}

// bucket fills with what passes and leaks at the average.
type bucket struct {
	level float64
	at    time.Time
}

// New returns a group with limits that have been checked.
func New(l Limits) *Group { return &Group{limits: l} }

// Wait returns when a request of n bytes may pass.
func (g *Group) Wait(n int64, write bool) {
	if delay := g.take(time.Now(), n, write); delay > 0 {
		time.Sleep(delay)
	}
}

// take counts a request and returns how long it has to wait.
func (g *Group) take(now time.Time, n int64, write bool) (delay time.Duration) {
	ops := int64(1)
	if g.limits.OpSize > 0 {
		ops = max(1, (n+g.limits.OpSize-1)/g.limits.OpSize)
	}
	l := &g.limits
	side := 1
	if write {
		side = 2
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, limit := range []Limit{l.Bytes, l.ReadBytes, l.WriteBytes, l.Ops, l.ReadOps, l.WriteOps} {
		if i%3 != 0 && i%3 != side {
			continue
		}
		amount := n
		if i >= 3 {
			amount = ops
		}
		delay = max(delay, g.buckets[i].take(now, limit, amount))
	}
	return delay
}

// take adds to a bucket and returns when it has leaked down to what it holds: a
// burst, or a tenth of what passes in a second.
func (b *bucket) take(now time.Time, l Limit, amount int64) time.Duration {
	if l.Average == 0 {
		return 0
	}
	rate := float64(l.Average)
	if !b.at.IsZero() {
		b.level = max(0, b.level-rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	room := rate / 10
	if l.Burst > 0 {
		room = float64(l.Burst) * float64(max(l.Seconds, 1))
	}
	over := b.level - room
	b.level += float64(amount)
	if over <= 0 {
		return 0
	}
	return time.Duration(over / rate * float64(time.Second))
}
