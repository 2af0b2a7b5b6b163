package qcow2

import "github.com/diskimg/diskimg/block"

// ChangeKeys implements block.KeyChanger, for images encrypted with LUKS.
func (d *disk) ChangeKeys(c block.KeyChange) error {
	if err := d.mayChangeKeys(); err != nil {
		return err
	}
	return d.alone(func() error {
		h, area, err := d.luksHeader()
		if err != nil {
			return err
		}
		if err := d.mayWriteLUKS(area); err != nil {
			return err
		}
		return h.Change(area, c, func() ([]byte, error) { return passphrase(cryptLUKS, d.crypt.ask) })
	})
}

func (d *disk) mayChangeKeys() error {
	switch {
	case d.hdr.cryptMethod == cryptNone:
		return block.Invalidf("Can't amend encryption options - encryption not present")
	case d.hdr.cryptMethod != cryptLUKS:
		return block.Invalidf("Only LUKS encryption options can be amended")
	case !d.writable:
		return block.ErrReadOnly
	}
	return nil
}

// mayWriteLUKS refuses to write a LUKS header over anything else. Takes mu.
func (d *disk) mayWriteLUKS(area *luksArea) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refusal(); err != nil {
		return err
	}
	return d.mayWriteMeta(metaCrypt, hostOff(area.off), area.size)
}
