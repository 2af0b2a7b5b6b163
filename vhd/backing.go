package vhd

import (
	"bytes"

	"github.com/diskimg/diskimg/block"
)

// Changing the parent of a differencing disk. Its names and the dynamic header
// take more than the one sector that can be written at once, so the new header
// is put behind the last block first; the footer's copy at the beginning, which
// is one sector, then leads to the one or the other.

var _ block.BackingChanger = (*disk)(nil)

// ChangeBacking implements block.BackingChanger. The policy that the image was
// opened with opens the new parent, for its UUID and time. Without a parent the
// disk becomes a dynamic one. Dynamic disks can't get a parent: nothing says
// which of their zeros are their own.
func (d *disk) ChangeBacking(name, format string) error {
	d.writers.Lock()
	defer d.writers.Unlock()
	switch {
	case !d.writable:
		return block.ErrReadOnly
	case d.damage != nil:
		return d.damage
	case name == "" && format != "":
		return block.Invalidf("Backing format cannot be used without backing file")
	case name != "" && format != "" && format != formatName:
		return block.Invalidf("The parent of a VHD has to be a VHD, format vpc, and not %s", format)
	case name != "" && !d.differencing:
		return block.Unsupportedf("only a differencing disk can get another parent, this is a dynamic one")
	case !d.differencing:
		return d.Flush()
	}
	p, err := d.newParent(name)
	if err != nil {
		return err
	}
	// Before the header names another parent, all that makes up for the
	// difference must be on disk: alone flushes.
	return d.alone(func() error { return d.setParent(p) })
}

// newParent finds out what has to be known of a new parent; nil for none.
func (d *disk) newParent(name string) (*Parent, error) {
	if name == "" {
		return nil, nil
	}
	p := &Parent{Name: name}
	if err := p.validate(); err != nil {
		return nil, err
	}
	img, err := d.policy.OpenImage(block.Ref{Role: block.RoleBacking, Name: name, Format: formatName, From: d.path})
	if err != nil {
		return nil, err
	}
	defer img.Close()
	layer, ok := block.As[identified](img)
	if !ok {
		return nil, block.Invalidf("the parent %q is not a VHD", name)
	}
	p.Identity = layer.identity()
	return p, nil
}

// setParent has the header name another parent, or the disk be a dynamic one.
// Needs mu, and that nothing in the tables waits to be written.
func (d *disk) setParent(p *Parent) error {
	foot, h := *d.foot, *d.hdr
	var names []byte
	if p == nil {
		foot.kind = Dynamic
		h.clearParent()
	} else {
		names = h.setParent(p, d.end)
	}
	if err := d.replaceHeader(&foot, &h, names); err != nil {
		return err
	}
	d.foot, d.hdr = &foot, &h
	d.sealed = block.Errorf(block.ErrInvalid, "the disk has got another parent and has to be opened again to be written")
	return nil
}

// replaceHeader writes a dynamic header and its footer in the place of those
// that are there, and behind the last block what they refer to. Needs mu.
func (d *disk) replaceHeader(foot *footer, h *header, names []byte) error {
	if err := d.cutTail(); err != nil {
		return err
	}
	home, end := foot.dataOffset, d.end+int64(len(names))
	// Before the footer leads to the header there, it must be on disk. The
	// zeros behind it can't be taken for a footer.
	if err := d.putTables(bytes.Join([][]byte{names, h.encode(), make([]byte, footerSize)}, nil), d.end); err != nil {
		return err
	}
	foot.dataOffset = uint64(end)
	if err := d.putTables(foot.encode(), 0); err != nil {
		return err
	}
	// Before the header gets its final place, the footer must not lead there
	// any more; before the footer does again, the header must be on disk.
	if err := d.putTables(h.encode(), int64(home)); err != nil {
		return err
	}
	foot.dataOffset = home
	if err := d.putTables(foot.encode(), 0); err != nil {
		return err
	}
	d.foot = foot
	return d.trim(end)
}
