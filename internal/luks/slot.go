package luks

import (
	"crypto/rand"
	"crypto/subtle"
	"hash"
	"io"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sectors"
)

// Area is where a header and its key material lie, from offset 0 on.
type Area interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

var errNoSlot = block.Errorf(block.ErrPassphrase, "Invalid password, cannot unlock any keyslot")

// Read reads the header that f begins with. area is as in Parse.
func Read(f io.ReaderAt, area int64) (*Header, error) {
	b := make([]byte, Size)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return Parse(b[:n], area)
}

// check reports whether cipher and hash are known, and to try a passphrase is
// not too much work.
func (h *Header) check() (func() hash.Hash, error) {
	f, err := sectors.NewHash(h.Hash)
	if err != nil {
		return nil, err
	}
	if work := h.work(f().Size()); work > MaxWork {
		return nil, block.Unsupportedf("LUKS header asks for %d iterations to try a passphrase in all slots, the limit is %d", work, MaxWork)
	}
	return f, sectors.Check(h.Cipher, h.Mode, h.KeyBytes)
}

// work returns how many iterations of a hash of that size it takes to try a
// passphrase in all slots.
func (h *Header) work(hashSize int) (n int64) {
	for i := range h.Slots {
		if s := &h.Slots[i]; s.Active {
			n += int64(s.Iterations)*blocks(h.KeyBytes, hashSize) + int64(h.Iterations)*blocks(digestSize, hashSize)
		}
	}
	return n
}

// Open returns the cipher of the disk, if the passphrase opens a slot.
func (h *Header) Open(f io.ReaderAt, passphrase []byte) (*sectors.Cipher, error) {
	key, _, err := h.unlock(f, passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return sectors.New(h.Cipher, h.Mode, key)
}

// unlock returns the master key and the slot that had it.
func (h *Header) unlock(f io.ReaderAt, passphrase []byte) (key []byte, slot int, err error) {
	if _, err := h.check(); err != nil {
		return nil, 0, err
	}
	for i := range h.Slots {
		if !h.Slots[i].Active {
			continue
		}
		key, err := h.unlockSlot(f, i, passphrase)
		if key != nil || err != nil {
			return key, i, err
		}
	}
	return nil, 0, errNoSlot
}

// unlockSlot returns the master key, nil if the passphrase is not that of the
// slot.
func (h *Header) unlockSlot(f io.ReaderAt, i int, passphrase []byte) ([]byte, error) {
	newHash, err := h.check()
	if err != nil {
		return nil, err
	}
	s := &h.Slots[i]
	c, err := h.slotCipher(s, newHash, passphrase)
	if err != nil {
		return nil, err
	}
	material := make([]byte, roundUp(h.materialSize(), sectors.Size))
	defer clear(material)
	if _, err := f.ReadAt(material, s.Offset); err != nil && err != io.EOF {
		return nil, err
	}
	c.Decrypt(material, material, 0)
	key := merge(newHash, material[:h.materialSize()], h.KeyBytes)
	digest := h.digestOf(newHash, key)
	if subtle.ConstantTimeCompare(digest[:], h.digest[:]) == 1 {
		return key, nil
	}
	clear(key)
	return nil, nil
}

// slotCipher returns the cipher of a slot's key material.
func (h *Header) slotCipher(s *Slot, newHash func() hash.Hash, passphrase []byte) (*sectors.Cipher, error) {
	key := make([]byte, h.KeyBytes)
	defer clear(key)
	derive(newHash, passphrase, s.salt[:], s.Iterations, key)
	return sectors.New(h.Cipher, h.Mode, key)
}

func (h *Header) digestOf(newHash func() hash.Hash, key []byte) (d [digestSize]byte) {
	derive(newHash, key, h.salt[:], h.Iterations, d[:])
	return d
}

// AddOptions say how a slot is made.
type AddOptions struct {
	Slot     int           // which one, -1 for the first that is free
	IterTime time.Duration // how long to derive a key; 0 is DefaultIterTime
	Old, New []byte        // a passphrase that opens the disk, and that of the slot
}

// DefaultIterTime is how long it takes to derive a key from a passphrase, on
// one processor of the machine that made the slot.
const DefaultIterTime = 2 * time.Second

// Add makes a slot active. h is what f begins with.
func (h *Header) Add(f Area, o AddOptions) (slot int, err error) {
	if slot, err = h.freeSlot(o.Slot); err != nil {
		return 0, err
	}
	key, _, err := h.unlock(f, o.Old)
	if err != nil {
		return 0, err
	}
	defer clear(key)
	newHash, err := h.check()
	if err != nil {
		return 0, err
	}
	if err := h.fillSlot(f, slot, key, o, rate(newHash, o.IterTime)); err != nil {
		return 0, err
	}
	if err := h.allows(slot); err != nil {
		return 0, err
	}
	if _, err := f.WriteAt(h.Encode(), 0); err != nil {
		return 0, err
	}
	// After key material and salt are on disk: a slot that is active can be
	// opened.
	if err := f.Sync(); err != nil {
		return 0, err
	}
	return slot, h.switchSlot(f, slot, true)
}

func (h *Header) freeSlot(want int) (int, error) {
	switch {
	case want >= Slots || want < -1:
		return 0, block.Invalidf("Invalid slot %d specified. Must be between 0 and %d", want, Slots-1)
	case want >= 0 && h.Slots[want].Active:
		return 0, block.Invalidf("Can't update keyslot %d - it is active", want)
	case want >= 0:
		return want, nil
	}
	for i := range h.Slots {
		if !h.Slots[i].Active {
			return i, nil
		}
	}
	return 0, block.Invalidf("Can't add a keyslot - all key slots are in use")
}

// allows reports whether the header would still be within the limits with that
// slot active.
func (h *Header) allows(i int) error {
	with := *h
	with.Slots[i].Active = true
	_, err := with.check()
	return err
}

// fillSlot writes the key material of a slot that is not active.
func (h *Header) fillSlot(f io.WriterAt, i int, key []byte, o AddOptions, perSecond float64) error {
	newHash, err := h.check()
	if err != nil {
		return err
	}
	s := &h.Slots[i]
	if o.IterTime == 0 {
		o.IterTime = DefaultIterTime
	}
	s.Iterations, s.Stripes = iterationsFor(newHash, perSecond, o.IterTime, h.KeyBytes), Stripes
	rand.Read(s.salt[:]) // never fails
	c, err := h.slotCipher(s, newHash, o.New)
	if err != nil {
		return err
	}
	material := make([]byte, roundUp(h.materialSize(), sectors.Size))
	split(newHash, key, material[:h.materialSize()])
	c.Encrypt(material, material, 0)
	_, err = f.WriteAt(material[:h.materialSize()], s.Offset)
	return err
}

// switchSlot writes the header with a slot active or not.
func (h *Header) switchSlot(f Area, i int, active bool) error {
	h.Slots[i].Active = active
	if _, err := f.WriteAt(h.Encode(), 0); err != nil {
		return err
	}
	return f.Sync()
}

// Matching returns the slots that the passphrase opens.
func (h *Header) Matching(f io.ReaderAt, passphrase []byte) (list []int, err error) {
	for i := range h.Slots {
		if !h.Slots[i].Active {
			continue
		}
		key, err := h.unlockSlot(f, i, passphrase)
		if err != nil {
			return nil, err
		}
		if key != nil {
			list = append(list, i)
			clear(key)
		}
	}
	return list, nil
}

// ActiveSlots counts the slots that are in use.
func (h *Header) ActiveSlots() (n int) {
	for i := range h.Slots {
		if h.Slots[i].Active {
			n++
		}
	}
	return n
}

// Erase destroys the key material of a slot and makes it inactive. Nobody who
// knows its passphrase can open the disk with it again.
func (h *Header) Erase(f Area, i int) error {
	if i < 0 || i >= Slots {
		return block.Invalidf("Invalid slot %d specified. Must be between 0 and %d", i, Slots-1)
	}
	if !h.Slots[i].Active {
		return block.Invalidf("Given keyslot %d is already erased (inactive) ", i)
	}
	noise := make([]byte, h.materialSize())
	rand.Read(noise) // never fails
	// Before the slot is free: a crash must not leave one that looks erased.
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

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
