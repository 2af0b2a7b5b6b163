package sectors

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/diskimg/diskimg/block"
)

// How a sector's number becomes its initialization vector.

// iv is a way to make it. Facts: LUKS1 on-disk format specification, section
// "Cipher and hash specification registry".
type iv struct {
	// bits of the number that are used: 32 (plain) or 64.
	narrow bool
	// hash names the hash of the key with which the number is encrypted, if it
	// is: ESSIV.
	hash string
}

// parseIV reads what follows the mode, as in plain64 and essiv:sha256.
func (c *Cipher) parseIV(algorithm, spec string) error {
	name, hash, _ := strings.Cut(spec, ":")
	switch name {
	case "plain":
		c.iv = iv{narrow: true}
	case "plain64":
	case "essiv":
		return c.parseESSIV(algorithm, hash)
	default:
		return block.Unsupportedf("Unsupported IV generator %s", spec)
	}
	return nil
}

func (c *Cipher) parseESSIV(name, hash string) error {
	h, err := NewHash(hash)
	switch {
	case err != nil:
		return err
	case name == "cast5":
		return block.Unsupportedf("Cipher %s not supported with essiv", name)
	case !slices.Contains(algorithms[name].sizes, h().Size()):
		return block.Unsupportedf("No %s cipher with key size %d available", map[string]string{"aes": "AES", "twofish": "Twofish"}[name], h().Size())
	}
	c.iv = iv{hash: hash}
	return nil
}

// setIV makes the initialization vector of sector n. It is as long as a block
// of the cipher, least significant byte first.
func (c *Cipher) setIV(w *worker, n uint64) {
	if c.iv.narrow {
		n &= 1<<32 - 1
	}
	binary.LittleEndian.PutUint64(w.iv[:8], n)
	clear(w.iv[8:])
	if c.essiv != nil {
		c.essiv.Encrypt(w.iv[:], w.iv[:])
	}
}
