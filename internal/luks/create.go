package luks

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sectors"
)

// CreateOptions say how a disk is to be encrypted. Empty is what QEMU does:
// aes-256, xts, plain64, sha256.
type CreateOptions struct {
	Cipher   string        // with its key size in bits: aes-128, aes-256, twofish-256, cast5-128 …
	Mode     string        // xts, cbc, ctr or ecb
	IVGen    string        // plain, plain64 or essiv
	IVHash   string        // for essiv
	Hash     string        // of all that is derived
	IterTime time.Duration // how long to derive a key; 0 is DefaultIterTime
}

// ciphers are those that a disk can be made with: their names, as in QEMU, that
// of the header, and the bytes of the key.
var ciphers = map[string]struct {
	name string
	key  int
}{
	"aes-128": {"aes", 16}, "aes-192": {"aes", 24}, "aes-256": {"aes", 32},
	"twofish-128": {"twofish", 16}, "twofish-192": {"twofish", 24}, "twofish-256": {"twofish", 32},
	"cast5-128": {"cast5", 16},
}

// unknown are values that QEMU has as well and we have no library for.
var unknown = map[string]bool{
	"serpent-128": true, "serpent-192": true, "serpent-256": true, "des": true, "3des": true,
}

// CipherName is what the options call the cipher of a header.
func (h *Header) CipherName() string {
	key := h.KeyBytes
	if len(h.Mode) >= 3 && h.Mode[:3] == "xts" {
		key /= 2
	}
	return fmt.Sprintf("%s-%d", h.Cipher, key*8)
}

// Layout returns a header for the options, with a place for everything and no
// key yet. Its Payload is how long it is with its key material.
func (o *CreateOptions) Layout() (*Header, error) {
	mode, ivgen := cmp.Or(o.Mode, "xts"), cmp.Or(o.IVGen, "plain64")
	c, err := o.cipher()
	if err != nil {
		return nil, err
	}
	h := &Header{Cipher: c.name, KeyBytes: c.key, Hash: cmp.Or(o.Hash, "sha256"), Mode: mode + "-" + ivgen}
	if mode == "xts" {
		h.KeyBytes *= 2
	}
	if ivgen == "essiv" {
		h.Mode += ":" + cmp.Or(o.IVHash, "sha256")
	}
	if err := o.validate(h); err != nil {
		return nil, err
	}
	h.place()
	return h, nil
}

func (o *CreateOptions) cipher() (c struct {
	name string
	key  int
}, err error) {
	name := cmp.Or(o.Cipher, "aes-256")
	c, ok := ciphers[name]
	if !ok {
		return c, refuse("cipher-alg", name, "Algorithm '%s' not supported")
	}
	return c, nil
}

// refuse words that an option can't have a value.
func refuse(option, value, known string) error {
	if unknown[value] {
		return block.Unsupportedf(known, value)
	}
	return block.Invalidf("Parameter '%s' does not accept value '%s'", option, value)
}

func (o *CreateOptions) validate(h *Header) error {
	ivgens := map[string]bool{"": true, "plain": true, "plain64": true, "essiv": true}
	modes := map[string]bool{"": true, "xts": true, "cbc": true, "ecb": true, "ctr": true}
	_, noIVHash := sectors.NewHash(cmp.Or(o.IVHash, "sha256"))
	_, noHash := sectors.NewHash(h.Hash)
	switch {
	case !modes[o.Mode]:
		return refuse("cipher-mode", o.Mode, "Unsupported cipher mode %s")
	case !ivgens[o.IVGen]:
		return refuse("ivgen-alg", o.IVGen, "")
	case noIVHash != nil:
		return refuse("ivgen-hash-alg", o.IVHash, "")
	case noHash != nil:
		return refuse("hash-alg", o.Hash, "")
	case o.IterTime < 0:
		return block.Invalidf("Parameter 'iter-time' must not be negative")
	case h.materialSize()%sectors.Size != 0:
		return block.Unsupportedf("QEMU has no key material of %d bytes: it is no multiple of %d", h.materialSize(), sectors.Size)
	}
	return sectors.Check(h.Cipher, h.Mode, h.KeyBytes)
}

// align is what key material begins at a multiple of.
const align = 4096

func (h *Header) place() {
	step := roundUp(h.materialSize(), align)
	for i := range h.Slots {
		h.Slots[i].Offset, h.Slots[i].Stripes = align+int64(i)*step, Stripes
	}
	h.Payload = align + Slots*step
}

// Create writes a new header with a new master key, which the passphrase opens,
// and returns the cipher of the disk.
func (o *CreateOptions) Create(f io.WriterAt, passphrase []byte) (*Header, *sectors.Cipher, error) {
	h, err := o.Layout()
	if err != nil {
		return nil, nil, err
	}
	newHash, err := h.check()
	if err != nil {
		return nil, nil, err
	}
	key := make([]byte, h.KeyBytes)
	defer clear(key)
	rand.Read(key) // never fails
	rand.Read(h.salt[:])
	h.UUID = newUUID()
	k := newKey{passphrase, cmp.Or(o.IterTime, DefaultIterTime), rate(newHash, o.IterTime)}
	// An eighth of the time for the digest, as cryptsetup and QEMU do.
	h.Iterations = iterationsFor(newHash, k.perSecond, k.iterTime/8, digestSize)
	h.digest = h.digestOf(newHash, key)
	if err := h.fillSlot(f, 0, key, k); err != nil {
		return nil, nil, err
	}
	h.Slots[0].Active = true
	if _, err := f.WriteAt(h.Encode(), 0); err != nil {
		return nil, nil, err
	}
	c, err := sectors.New(h.Cipher, h.Mode, key)
	return h, c, err
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
