package luks

import (
	"cmp"
	"crypto/rand"

	"github.com/diskimg/diskimg/block"
)

// Key slots made and erased. At each instant one that opened the disk before
// does so still, or a new one does, unless the last one is erased by force.

// Change makes or erases slots of h, which is what f begins with. current is
// asked for a passphrase that opens the disk. Nothing is changed if it is
// refused.
func (h *Header) Change(f Area, c block.KeyChange, current func() ([]byte, error)) error {
	if c.Slot != nil && (*c.Slot < 0 || *c.Slot >= Slots) {
		return block.Invalidf("Invalid keyslot %d specified, must be between 0 and %d", uint32(*c.Slot), Slots-1)
	}
	if c.Erase {
		return h.erase(f, c)
	}
	return h.add(f, c, current)
}

// add makes a slot for a new passphrase.
func (h *Header) add(f Area, c block.KeyChange, current func() ([]byte, error)) error {
	slot, err := h.slotToFill(c)
	if err != nil {
		return err
	}
	p, err := current()
	if err != nil {
		return err
	}
	defer clear(p)
	key, _, err := h.unlock(f, p)
	if err != nil {
		return err
	}
	defer clear(key)
	newHash, err := h.check()
	if err != nil {
		return err
	}
	k := newKey{c.New, cmp.Or(c.IterTime, DefaultIterTime), rate(newHash, c.IterTime)}
	if h.Slots[slot].Active {
		return h.overwrite(f, slot, key, k)
	}
	return h.activate(f, slot, key, k)
}

// slotToFill returns the slot that a new passphrase gets.
func (h *Header) slotToFill(c block.KeyChange) (int, error) {
	switch {
	case c.New == nil:
		return 0, block.Invalidf("'new-secret' is required to activate a keyslot")
	case c.Old != nil:
		return 0, block.Invalidf("'old-secret' must not be given when activating keyslots")
	case c.IterTime < 0:
		return 0, block.Invalidf("Parameter 'iter-time' must not be negative")
	case c.Slot == nil:
		return h.freeSlot()
	case h.Slots[*c.Slot].Active && !c.Force:
		return 0, block.Invalidf("Refusing to overwrite active keyslot %d - please erase it first", *c.Slot)
	}
	return *c.Slot, nil
}

func (h *Header) freeSlot() (int, error) {
	for i := range h.Slots {
		if !h.Slots[i].Active {
			return i, nil
		}
	}
	return 0, block.Invalidf("Can't add a keyslot - all keyslots are in use")
}

// activate fills a slot that is free.
func (h *Header) activate(f Area, slot int, key []byte, k newKey) error {
	if err := h.fillSlot(f, slot, key, k); err != nil {
		return err
	}
	if err := h.allows(slot); err != nil {
		return err
	}
	if _, err := f.WriteAt(h.Encode(), 0); err != nil {
		return err
	}
	// After key material and salt are on disk: a slot that is active can be
	// opened.
	if err := f.Sync(); err != nil {
		return err
	}
	return h.switchSlot(f, slot, true)
}

// overwrite gives a slot that is in use another passphrase. If it is the only
// one, another has the new passphrase meanwhile.
func (h *Header) overwrite(f Area, slot int, key []byte, k newKey) error {
	spare := -1
	if h.ActiveSlots() == 1 {
		spare = (slot + 1) % Slots
		if err := h.activate(f, spare, key, k); err != nil {
			return err
		}
	}
	if err := h.eraseSlot(f, slot); err != nil {
		return err
	}
	if err := h.activate(f, slot, key, k); err != nil || spare < 0 {
		return err
	}
	return h.eraseSlot(f, spare)
}

// erase makes slots unusable.
func (h *Header) erase(f Area, c block.KeyChange) error {
	list, err := h.slotsToErase(f, c)
	if err != nil {
		return err
	}
	for _, i := range list {
		if err := h.eraseSlot(f, i); err != nil {
			return err
		}
	}
	return nil
}

func (h *Header) slotsToErase(f Area, c block.KeyChange) ([]int, error) {
	switch {
	case c.New != nil:
		return nil, block.Invalidf("'new-secret' must not be given when erasing keyslots")
	case c.IterTime != 0:
		return nil, block.Invalidf("'iter-time' must not be given when erasing keyslots")
	case c.Slot != nil:
		return []int{*c.Slot}, h.mayErase(f, *c.Slot, c)
	case c.Old == nil:
		return nil, block.Invalidf("To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given")
	}
	list, err := h.matching(f, c.Old)
	switch {
	case err != nil:
		return nil, err
	case len(list) == 0:
		return nil, block.Errorf(block.ErrPassphrase, "No keyslots match given (old) password for erase operation")
	case len(list) == h.ActiveSlots() && !c.Force:
		return nil, block.Errorf(block.ErrRefused, "All the active keyslots match the (old) password that was given and erasing them will erase all the data in the image irreversibly - refusing operation")
	}
	return list, nil
}

// mayErase refuses to erase a slot that is not the one meant, or the last.
func (h *Header) mayErase(f Area, slot int, c block.KeyChange) error {
	if c.Old != nil {
		if key, err := h.openSlot(f, slot, c.Old); key == nil {
			return cmp.Or(err, block.Errorf(block.ErrPassphrase, "Given keyslot %d doesn't contain the given old password for erase operation", slot))
		} else {
			clear(key)
		}
	}
	switch {
	case !h.Slots[slot].Active && !c.Force:
		return block.Invalidf("Given keyslot %d is already erased (inactive) ", slot)
	case h.ActiveSlots() == 1 && !c.Force:
		return block.Errorf(block.ErrRefused, "Attempt to erase the only active keyslot %d which will erase all the data in the image irreversibly - refusing operation", slot)
	}
	return nil
}

// openSlot is unlockSlot for any slot: one that is free has no key.
func (h *Header) openSlot(f Area, i int, passphrase []byte) ([]byte, error) {
	if !h.Slots[i].Active {
		return nil, nil
	}
	return h.unlockSlot(f, i, passphrase)
}

// eraseSlot destroys the key material of a slot and makes it free. Nobody who
// knows its passphrase can open the disk with it again.
func (h *Header) eraseSlot(f Area, i int) error {
	noise := make([]byte, h.materialSize())
	rand.Read(noise) // never fails
	// Before the slot is free: a power cut must not leave one that only looks
	// erased.
	if _, err := f.WriteAt(noise, h.Slots[i].Offset); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	h.Slots[i].Iterations = 0
	clear(h.Slots[i].salt[:])
	return h.switchSlot(f, i, false)
}
