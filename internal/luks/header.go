package luks

import (
	"bytes"
	"encoding/binary"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sectors"
)

// The codec of the header: bytes to fields and back.

const (
	// Size of the header without the key material, in bytes.
	Size = 592
	// Slots is how many passphrases a disk can have.
	Slots = 8
	// Stripes is into how many parts a key is split.
	Stripes = 4000
	// MaxIterations bounds the work for one slot that a header may ask for:
	// some ten seconds of a processor. QEMU and cryptsetup make headers for two
	// seconds.
	MaxIterations = 100_000_000
	// MaxWork bounds the iterations that it takes to try one passphrase in all
	// slots: enough for eight slots with ten seconds each on the machine that
	// made them.
	MaxWork = 400_000_000

	// MinIterations is the least with which anything is made.
	MinIterations = 1000

	maxKeyBytes = 64
	digestSize  = 20
	saltSize    = 32

	slotActive   = 0x00ac71f3
	slotInactive = 0x0000dead
	slotsAt      = 208
	slotSize     = 48
)

var magic = []byte("LUKS\xba\xbe")

// Header is the header of a disk.
type Header struct {
	Cipher, Mode, Hash string // as "aes", "xts-plain64", "sha256"
	Payload            int64  // where the encrypted disk begins, in bytes
	KeyBytes           int
	Iterations         uint32 // of the digest of the master key
	UUID               string
	Slots              [Slots]Slot

	digest [digestSize]byte
	salt   [saltSize]byte
}

// Slot is a place for the master key encrypted with a passphrase.
type Slot struct {
	Active     bool
	Iterations uint32
	Offset     int64 // of the key material, in bytes
	Stripes    uint32

	salt [saltSize]byte
}

// Probe reports whether head, the first bytes of a file, are those of a LUKS1
// header.
func Probe(head []byte) bool {
	return len(head) >= 8 && bytes.HasPrefix(head, magic) && binary.BigEndian.Uint16(head[6:]) == 1
}

// Parse decodes a header. area is how many bytes there are for it and the key
// material, counted from where it begins. A cipher that is not known is no
// error yet: see Open.
func Parse(b []byte, area int64) (*Header, error) {
	be := binary.BigEndian
	switch {
	case len(b) < Size || !bytes.HasPrefix(b, magic):
		return nil, block.Errorf(block.ErrFormat, "Volume is not in LUKS format")
	case be.Uint16(b[6:]) != 1:
		return nil, block.Unsupportedf("LUKS version %d is not supported", be.Uint16(b[6:]))
	}
	h := &Header{
		Payload: int64(be.Uint32(b[104:])) * sectors.Size, KeyBytes: int(be.Uint32(b[108:])), Iterations: be.Uint32(b[164:]),
	}
	copy(h.digest[:], b[112:])
	copy(h.salt[:], b[132:])
	for _, f := range []struct {
		value  *string
		what   string
		at, to int
	}{{&h.Cipher, "cipher name", 8, 40}, {&h.Mode, "cipher mode", 40, 72}, {&h.Hash, "hash name", 72, 104}, {&h.UUID, "UUID", 168, 208}} {
		name, _, ended := bytes.Cut(b[f.at:f.to], []byte{0})
		if !ended {
			return nil, block.Corruptf("LUKS header %s is not NUL terminated", f.what)
		}
		*f.value = string(name)
	}
	for i := range h.Slots {
		if err := h.Slots[i].parse(b[slotsAt+i*slotSize:], i); err != nil {
			return nil, err
		}
	}
	return h, h.validate(area)
}

func (s *Slot) parse(b []byte, i int) error {
	be := binary.BigEndian
	switch state := be.Uint32(b); state {
	case slotActive:
		s.Active = true
	case slotInactive:
	default:
		return block.Corruptf("Keyslot %d state is neither active nor inactive: %#x", i, state)
	}
	s.Iterations = be.Uint32(b[4:])
	copy(s.salt[:], b[8:])
	s.Offset = int64(be.Uint32(b[40:])) * sectors.Size
	s.Stripes = be.Uint32(b[44:])
	return nil
}

// Encode returns the header's bytes.
func (h *Header) Encode() []byte {
	be := binary.BigEndian
	b := make([]byte, Size)
	copy(b, magic)
	be.PutUint16(b[6:], 1)
	copy(b[8:39], h.Cipher)
	copy(b[40:71], h.Mode)
	copy(b[72:103], h.Hash)
	be.PutUint32(b[104:], uint32(h.Payload/sectors.Size))
	be.PutUint32(b[108:], uint32(h.KeyBytes))
	copy(b[112:], h.digest[:])
	copy(b[132:], h.salt[:])
	be.PutUint32(b[164:], h.Iterations)
	copy(b[168:207], h.UUID)
	for i := range h.Slots {
		h.Slots[i].encode(b[slotsAt+i*slotSize:])
	}
	return b
}

func (s *Slot) encode(b []byte) {
	be := binary.BigEndian
	be.PutUint32(b, slotInactive)
	if s.Active {
		be.PutUint32(b, slotActive)
	}
	be.PutUint32(b[4:], s.Iterations)
	copy(b[8:], s.salt[:])
	be.PutUint32(b[40:], uint32(s.Offset/sectors.Size))
	be.PutUint32(b[44:], s.Stripes)
}

// materialSize is how many bytes a slot's split key takes.
func (h *Header) materialSize() int64 { return int64(h.KeyBytes) * Stripes }

// validate checks the fields against each other, the limits, and the area.
func (h *Header) validate(area int64) error {
	switch {
	case h.KeyBytes < 1 || h.KeyBytes > maxKeyBytes:
		return block.Corruptf("LUKS key of %d bytes; it has 1 to %d", h.KeyBytes, maxKeyBytes)
	case h.Iterations == 0:
		return block.Corruptf("LUKS key iteration count is zero")
	case h.Iterations > MaxIterations:
		return block.Unsupportedf("LUKS key iteration count %d is larger than the limit of %d", h.Iterations, MaxIterations)
	}
	for i := range h.Slots {
		if err := h.validateSlot(i, area); err != nil {
			return err
		}
	}
	return nil
}

func (h *Header) validateSlot(i int, area int64) error {
	s := &h.Slots[i]
	start, end := s.Offset, s.Offset+h.materialSize()
	switch {
	case s.Stripes != Stripes:
		return block.Corruptf("Keyslot %d is corrupted (stripes %d != %d)", i, s.Stripes, Stripes)
	case start < Size:
		return block.Corruptf("Keyslot %d is overlapping with the LUKS header: it begins at %d", i, start)
	case end > h.Payload:
		return block.Corruptf("Keyslot %d is overlapping with the encrypted payload: it ends at %d, the payload begins at %d", i, end, h.Payload)
	case end > area:
		return block.Corruptf("Keyslot %d lies beyond the end: it ends at %d of %d bytes", i, end, area)
	case s.Active && s.Iterations == 0:
		return block.Corruptf("Keyslot %d iteration count is zero", i)
	case s.Active && s.Iterations > MaxIterations:
		return block.Unsupportedf("Keyslot %d iteration count %d is larger than the limit of %d", i, s.Iterations, MaxIterations)
	}
	for k := range i {
		if o := h.Slots[k].Offset; start < o+h.materialSize() && o < end {
			return block.Corruptf("Keyslots %d and %d are overlapping in the header", k, i)
		}
	}
	return nil
}
