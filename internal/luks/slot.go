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

// DefaultIterTime is how long it takes to derive a key from a passphrase, on
// one processor of the machine that made the slot.
const DefaultIterTime = 2 * time.Second

// allows reports whether the header would still be within the limits with that
// slot active.
func (h *Header) allows(i int) error {
	with := *h
	with.Slots[i].Active = true
	_, err := with.check()
	return err
}

// fillSlot writes the key material of a slot that is not active.
func (h *Header) fillSlot(f io.WriterAt, i int, key []byte, k newKey) error {
	newHash, err := h.check()
	if err != nil {
		return err
	}
	s := &h.Slots[i]
	s.Iterations, s.Stripes = iterationsFor(newHash, k.perSecond, k.iterTime, h.KeyBytes), Stripes
	rand.Read(s.salt[:]) // never fails
	c, err := h.slotCipher(s, newHash, k.passphrase)
	if err != nil {
		return err
	}
	material := make([]byte, roundUp(h.materialSize(), sectors.Size))
	split(newHash, key, material[:h.materialSize()])
	c.Encrypt(material, material, 0)
	_, err = f.WriteAt(material[:h.materialSize()], s.Offset)
	return err
}

// newKey is what a slot is made with.
type newKey struct {
	passphrase []byte
	iterTime   time.Duration
	perSecond  float64 // iterations, see rate
}

// switchSlot writes the header with a slot active or not.
func (h *Header) switchSlot(f Area, i int, active bool) error {
	h.Slots[i].Active = active
	if _, err := f.WriteAt(h.Encode(), 0); err != nil {
		return err
	}
	return f.Sync()
}

// matching returns the slots that the passphrase opens.
func (h *Header) matching(f io.ReaderAt, passphrase []byte) (list []int, err error) {
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

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
