package model

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
)

// Options say which sequences to run.
type Options struct {
	// Create holds creation options, in qemu-img's names. In a value, {path}
	// stands for the path of the image.
	Create map[string]string
	// Actions are what is done; nil for Actions(). Those that an image can't
	// do are left out.
	Actions []Action
	// Runs is the number of sequences, 0 for 10, and Ops the number of
	// operations in each, 0 for 60. DISKIMG_LONG=1 makes Runs 50 times as many.
	Runs, Ops int
	// MaxSize bounds the size of disks, roughly; 0 for 4 MiB.
	MaxSize int64
}

// plan is what has been found out about the images that options make.
type plan struct {
	Options
	format  blocktest.Format
	cluster int64
	dir     string // for all executions
}

// defaultCluster is the unit for a format that has no clusters.
const defaultCluster = 64 << 10

// newPlan makes an image to see what it can do.
func newPlan(f blocktest.Format, o Options, dir string) (plan, error) {
	p := plan{Options: o, format: f, cluster: defaultCluster, dir: dir}
	p.Runs, p.Ops = orDefault(o.Runs, 10), orDefault(o.Ops, 60)
	if p.MaxSize == 0 {
		p.MaxSize = 4 << 20
	}
	if Race {
		p.MaxSize = min(p.MaxSize, 512<<10)
	}
	s := session{plan: p, dir: dir, seq: Sequence{Size: 1 << 20, Base: -1, Options: o.Create}}
	if err := s.create(); err != nil {
		return p, err
	}
	img, err := f.Open(s.path(), blocktest.OpenOptions{Writable: true})
	if err != nil {
		return p, err
	}
	p.Actions = able(o.Actions, img)
	if d, ok := block.As[block.Describer](img); ok {
		about, err := d.Describe()
		if err != nil {
			return p, err
		}
		if about.ClusterSize > 0 {
			p.cluster = about.ClusterSize
		}
	}
	return p, img.Close()
}

func orDefault(n, byDefault int) int {
	if n == 0 {
		return byDefault
	}
	return n
}

// able returns the actions that an image can do.
func able(actions []Action, img *block.Image) (can []Action) {
	if actions == nil {
		actions = Actions()
	}
	for _, a := range actions {
		if a.Needs == nil || a.Needs(img) {
			can = append(can, a)
		}
	}
	return can
}

// action returns the action of that name.
func (p plan) action(name string) (Action, bool) {
	for _, a := range p.Actions {
		if a.Name == name {
			return a, true
		}
	}
	return Action{}, false
}

// generate makes the sequence of a seed.
func (p plan) generate(seed int64) Sequence {
	r := source(seed)
	s := Sequence{Seed: seed, Base: -1, Cluster: p.cluster, Options: p.Create}
	s.Size = p.size(r)
	if p.format.Backing && r.IntN(2) == 0 {
		s.Base = s.Size
		if r.IntN(3) > 0 {
			s.Base = p.size(r)
		}
	}
	g := &Gen{Rand: r, Size: s.Size, Cluster: p.cluster, first: s.Size}
	for id := range p.Ops {
		s.Ops = append(s.Ops, p.op(g, uint32(id+1)))
	}
	return s
}

// source returns random numbers that seeds next to each other do not share.
func source(seed int64) *rand.Rand {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], uint64(seed))
	return rand.New(rand.NewChaCha8(key))
}

// size returns the size of a disk: mostly small, so that operations meet, and
// often not a multiple of the cluster size.
func (p plan) size(r *rand.Rand) int64 {
	low := max(256<<10, 2*p.cluster)
	high := max(low, p.MaxSize)
	size := low
	for size < high && r.IntN(2) == 0 {
		size *= 2
	}
	switch r.IntN(4) {
	case 0:
		size += r.Int64N(p.cluster)
	case 1:
		size -= r.Int64N(p.cluster)
	case 2:
		size += sector
	}
	return size / sector * sector
}

func (p plan) op(g *Gen, id uint32) Op {
	total := 0
	for _, a := range p.Actions {
		total += a.Weight
	}
	n := g.Rand.IntN(total)
	i := 0
	for n >= p.Actions[i].Weight {
		n -= p.Actions[i].Weight
		i++
	}
	o := Op{ID: id, Action: p.Actions[i].Name}
	if p.Actions[i].Make != nil {
		p.Actions[i].Make(g, &o)
	}
	g.remember(o)
	return o
}
