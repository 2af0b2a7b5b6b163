package model

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/diskimg/diskimg/block"
)

// Action is a kind of operation: how one is made up, what it does to an image,
// to the model, and in qemu-io. New kinds are new values.
type Action struct {
	Name string
	// Weight is how often it comes, relative to the others.
	Weight int
	// Rigid says that a range must stay as Make has made it.
	Rigid bool
	// Needs, if not nil, reports whether an image can do it. The image is
	// empty and for trying.
	Needs func(*block.Image) bool
	// Make fills in an operation at random.
	Make func(g *Gen, o *Op)
	// Do does it to an image. What it reads, it may compare with the model,
	// to which it has not been done yet.
	Do func(img *block.Image, d *Disk, o Op) error
	// Model does it to the model; nil if it changes nothing.
	Model func(d *Disk, o Op)
	// Fresh says that qemu-io can do it only where nothing was done before. It
	// writes plainly elsewhere.
	Fresh bool
	// QemuIO is the qemu-io command, given the flag of qemu-io's write that
	// says what to write.
	QemuIO func(o Op, content string) string
}

// Reopen is the name of the action that closes the image, inspects it and opens
// it again. The runners know it; it has no Do.
const Reopen = "reopen"

// Actions returns what every image can do, and compressed writes for those that
// have them.
func Actions() []Action {
	return []Action{write, writeZeroes, discard, writeCompressed, read, flush, reopen}
}

var write = Action{
	Name: "write", Weight: 40,
	Make: func(g *Gen, o *Op) {
		o.Off, o.Len = g.Range()
		o.Fill = g.Fill()
	},
	Do: func(img *block.Image, _ *Disk, o Op) error {
		p := o.Content()
		n, err := img.WriteAt(p, o.Off)
		if err == nil && n != len(p) {
			return fmt.Errorf("WriteAt returns %d without an error, want %d", n, len(p))
		}
		return err
	},
	Model: func(d *Disk, o Op) { d.Write(o.Content(), o.Off) },
	QemuIO: func(o Op, content string) string {
		return fmt.Sprintf("write -q %s %d %d", content, o.Off, o.Len)
	},
}

var writeZeroes = Action{
	Name: "zero", Weight: 12,
	Make: func(g *Gen, o *Op) {
		o.Off, o.Len = g.Range()
		o.Unmap = g.Rand.IntN(2) == 0
	},
	Do: func(img *block.Image, _ *Disk, o Op) error {
		var flags block.ZeroFlags
		if o.Unmap {
			flags = block.MayUnmap
		}
		return img.WriteZeroes(o.Off, o.Len, flags)
	},
	Model: func(d *Disk, o Op) { d.Zero(o.Off, o.Len) },
	QemuIO: func(o Op, _ string) string {
		flags := "-z"
		if o.Unmap {
			flags = "-z -u"
		}
		return fmt.Sprintf("write -q %s %d %d", flags, o.Off, o.Len)
	},
}

var discard = Action{
	Name: "discard", Weight: 10,
	Make:  func(g *Gen, o *Op) { o.Off, o.Len = g.Range() },
	Do:    func(img *block.Image, _ *Disk, o Op) error { return img.Discard(o.Off, o.Len) },
	Model: func(d *Disk, o Op) { d.Discard(o.Off, o.Len, o.ID) },
	QemuIO: func(o Op, _ string) string {
		return fmt.Sprintf("discard -q %d %d", o.Off, o.Len)
	},
}

var writeCompressed = Action{
	Name: "compress", Weight: 8, Rigid: true, Fresh: true,
	Needs: func(img *block.Image) bool {
		return !errors.Is(img.WriteCompressed(make([]byte, img.Size()), 0), block.ErrUnsupported)
	},
	Make: func(g *Gen, o *Op) {
		o.Off, o.Len = g.Clusters()
		o.Fill = g.Fill()
	},
	Do:    func(img *block.Image, _ *Disk, o Op) error { return img.WriteCompressed(o.Content(), o.Off) },
	Model: func(d *Disk, o Op) { d.Write(o.Content(), o.Off) },
	QemuIO: func(o Op, content string) string {
		return fmt.Sprintf("write -q -c %s %d %d", content, o.Off, o.Len)
	},
}

var read = Action{
	Name: "read", Weight: 20,
	Make: func(g *Gen, o *Op) { o.Off, o.Len = g.Range() },
	Do: func(img *block.Image, d *Disk, o Op) error {
		got, err := readAt(img, o.Off, o.Len)
		if err != nil {
			return err
		}
		return d.Settle(got, o.Off)
	},
	QemuIO: func(o Op, _ string) string { return fmt.Sprintf("read -q %d %d", o.Off, o.Len) },
}

var flush = Action{
	Name: "flush", Weight: 5,
	Do:     func(img *block.Image, _ *Disk, _ Op) error { return img.Flush() },
	QemuIO: func(Op, string) string { return "flush" },
}

var reopen = Action{Name: Reopen, Weight: 3}

// Grow and Shrink change the size of the disk, for images that can. They are not
// among Actions, because not every image that has block.Resizer can do both.
var (
	Grow = resize("grow", func(g *Gen) int64 {
		return g.Size + sector*g.Rand.Int64N(max(1, (2*g.first-g.Size)/sector))
	})
	Shrink = resize("shrink", func(g *Gen) int64 {
		return g.Size - sector*g.Rand.Int64N(min(g.Size/sector, 4*g.Cluster/sector))
	})
)

func resize(name string, size func(*Gen) int64) Action {
	return Action{
		Name: name, Weight: 2,
		Needs: func(img *block.Image) bool {
			_, ok := block.As[block.Resizer](img)
			return ok
		},
		Make: func(g *Gen, o *Op) {
			o.Size = size(g)
			g.Size = o.Size
		},
		Do: func(img *block.Image, _ *Disk, o Op) error {
			r, _ := block.As[block.Resizer](img)
			return r.Resize(context.Background(), o.Size, block.ResizeOptions{Shrink: true})
		},
		Model:  func(d *Disk, o Op) { d.Resize(o.Size) },
		QemuIO: func(o Op, _ string) string { return fmt.Sprintf("truncate %d", o.Size) },
	}
}

// readAt reads n bytes at off, and sees to it that each was set.
func readAt(img *block.Image, off, n int64) ([]byte, error) {
	p := make([]byte, n)
	for i := range p {
		p[i] = 0xee
	}
	k, err := img.ReadAt(p, off)
	if err == nil && int64(k) != n {
		err = fmt.Errorf("ReadAt returns %d without an error, want %d", k, n)
	}
	return p, err
}

// Gen makes up operations. Ranges are small and big, on and off the borders of
// sectors and clusters, and often where something was done before.
type Gen struct {
	Rand    *rand.Rand
	Size    int64
	Cluster int64

	first  int64 // the size that the disk had at first
	recent [8]Op // what was done lately
	count  int
}

// Range returns a range of the disk of at least one byte.
func (g *Gen) Range() (off, n int64) {
	off = g.offset()
	return off, min(g.length(), g.Size-off)
}

// Clusters returns a range of whole clusters, or up to the end of the disk.
func (g *Gen) Clusters() (off, n int64) {
	off = g.offset() / g.Cluster * g.Cluster
	n = (1 + g.Rand.Int64N(3)) * g.Cluster
	return off, min(n, g.Size-off)
}

// Fill returns a kind of content, mostly the ones that name their origin.
func (g *Gen) Fill() Fill {
	if g.Rand.IntN(2) == 0 {
		return Stamp
	}
	return fills[g.Rand.IntN(len(fills))]
}

func (g *Gen) offset() int64 {
	off := g.Rand.Int64N(g.Size)
	switch g.Rand.IntN(7) {
	case 0: // anywhere
	case 1:
		off -= off % sector
	case 2:
		off -= off % g.Cluster
	case 3: // around the border of a cluster
		off = off - off%g.Cluster + g.Rand.Int64N(5)*sector - 2*sector
	case 4: // near the end
		off = g.Size - 1 - g.Rand.Int64N(min(g.Size, 2*g.Cluster))
	default: // where something was done before
		if r := g.recent[g.Rand.IntN(len(g.recent))]; r.Len > 0 {
			off = r.Off + g.Rand.Int64N(r.Len+1)
		}
	}
	return max(0, min(off, g.Size-1))
}

func (g *Gen) length() int64 {
	switch g.Rand.IntN(6) {
	case 0:
		return 1 + g.Rand.Int64N(2*sector)
	case 1:
		return sector * (1 + g.Rand.Int64N(8))
	case 2:
		return g.Cluster
	case 3:
		return g.Cluster * (1 + g.Rand.Int64N(4))
	case 4:
		return 1 + g.Rand.Int64N(g.Cluster)
	}
	return 1 + g.Rand.Int64N(6*g.Cluster)
}

// remember makes a range one that later operations go to.
func (g *Gen) remember(o Op) {
	g.recent[g.count%len(g.recent)] = o
	g.count++
}
