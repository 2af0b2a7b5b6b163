// Package sectors encrypts disks sector by sector, each of 512 bytes and with
// an initialization vector made of its number, as LUKS1 (on-disk format
// specification, section "Cipher and hash specification registry") and the
// legacy encryption of qcow2 do.
package sectors

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"slices"
	"strings"
	"sync"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/rangelock"
	"golang.org/x/crypto/cast5"   //lint:ignore SA1019 disks that are encrypted so are to be read
	"golang.org/x/crypto/twofish" //lint:ignore SA1019 disks that are encrypted so are to be read
)

// Size is that of a sector, in bytes.
const Size = 512

// Cipher encrypts and decrypts sectors with one key, those of one file if it reads
// and writes. It may be used by many goroutines at once and allocates nothing once it is warm.
type Cipher struct {
	mode    mode
	iv      iv
	block   cipher.Block // of the data
	tweak   cipher.Block // of the sector numbers, for XTS
	essiv   cipher.Block // of the sector numbers, for ESSIV
	workers sync.Pool
	busy    rangelock.Lock // what is being read or written, in a file
}

type mode uint8

const (
	xts mode = iota
	cbc
	ecb
	ctr
)

var modes = map[string]mode{"xts": xts, "cbc": cbc, "ecb": ecb, "ctr": ctr}

// algorithm is a block cipher under the name that LUKS headers have for it.
type algorithm struct {
	new   func(key []byte) (cipher.Block, error)
	sizes []int // of keys, in bytes
}

var algorithms = map[string]algorithm{
	"aes":     {aes.NewCipher, []int{16, 24, 32}},
	"twofish": {func(key []byte) (cipher.Block, error) { return twofish.NewCipher(key) }, []int{16, 24, 32}},
	"cast5":   {func(key []byte) (cipher.Block, error) { return cast5.NewCipher(key) }, []int{16}},
}

// New returns the cipher that a LUKS header names, such as "aes" with
// "xts-plain64". The key is copied. What is not known is refused by name with
// block.ErrUnsupported.
func New(name, spec string, key []byte) (*Cipher, error) {
	c, a, err := parse(name, spec, len(key))
	if err != nil {
		return nil, err
	}
	if c.iv.hash != "" {
		if err := c.keyESSIV(a, key); err != nil {
			return nil, err
		}
	}
	if c.mode == xts {
		half := len(key) / 2
		if c.tweak, err = a.new(key[half:]); err != nil {
			return nil, err
		}
		key = key[:half]
	}
	if c.block, err = a.new(key); err != nil {
		return nil, err
	}
	c.workers.New = func() any { return c.newWorker() }
	return c, nil
}

// keyESSIV makes the cipher of sector numbers: the same one, its key a hash of
// the key.
func (c *Cipher) keyESSIV(a algorithm, key []byte) (err error) {
	h := hashes[c.iv.hash]()
	h.Write(key)
	salt := h.Sum(nil)
	defer clear(salt)
	c.essiv, err = a.new(salt)
	return err
}

// Check reports whether New would take a key of so many bytes.
func Check(name, spec string, keyBytes int) error {
	_, _, err := parse(name, spec, keyBytes)
	return err
}

// parse reads the names and returns a cipher that has no key yet.
func parse(name, spec string, keyBytes int) (*Cipher, algorithm, error) {
	a, ok := algorithms[name]
	if !ok {
		return nil, a, block.Unsupportedf("Algorithm '%s' with key size %d bytes not supported", name, keyBytes)
	}
	modeName, ivName, _ := strings.Cut(spec, "-")
	m, ok := modes[modeName]
	if !ok {
		return nil, a, block.Unsupportedf("Cipher mode '%s' not supported", modeName)
	}
	size := keyBytes
	if m == xts {
		size /= 2
	}
	switch {
	case m == xts && name == "cast5":
		return nil, a, block.Unsupportedf("Unsupported cipher mode %s", modeName)
	case m == xts && keyBytes%2 != 0 || !slices.Contains(a.sizes, size):
		return nil, a, block.Unsupportedf("Algorithm '%s' with key size %d bytes not supported", name, keyBytes)
	}
	c := &Cipher{mode: m}
	return c, a, c.parseIV(name, ivName)
}

// worker is the memory that one goroutine needs.
type worker struct {
	tweaks   [Size]byte
	iv       [16]byte
	enc, dec chained
}

// chained is a CBC mode that can begin again.
type chained interface {
	cipher.BlockMode
	SetIV(iv []byte)
}

func (c *Cipher) newWorker() *worker {
	w := new(worker)
	if c.mode == cbc {
		iv := w.iv[:c.block.BlockSize()]
		w.enc, _ = cipher.NewCBCEncrypter(c.block, iv).(chained)
		w.dec, _ = cipher.NewCBCDecrypter(c.block, iv).(chained)
	}
	return w
}

// Encrypt encrypts src, whole sectors from number first on, into dst, which is
// as long and is src itself or does not overlap it.
func (c *Cipher) Encrypt(dst, src []byte, first uint64) { c.each(dst, src, first, (*Cipher).seal) }

// Decrypt is the reverse of Encrypt.
func (c *Cipher) Decrypt(dst, src []byte, first uint64) { c.each(dst, src, first, (*Cipher).open) }

func (c *Cipher) each(dst, src []byte, n uint64, f func(c *Cipher, w *worker, dst, src []byte)) {
	w := c.workers.Get().(*worker)
	defer c.workers.Put(w)
	for ; len(src) >= Size; n++ {
		c.setIV(w, n)
		f(c, w, dst[:Size], src[:Size])
		dst, src = dst[Size:], src[Size:]
	}
}

// seal encrypts one sector.
func (c *Cipher) seal(w *worker, dst, src []byte) {
	switch c.mode {
	case xts:
		c.xts(w, dst, src, c.block.Encrypt)
	case cbc:
		m := w.enc
		iv := w.iv[:c.block.BlockSize()]
		if m == nil {
			cipher.NewCBCEncrypter(c.block, iv).CryptBlocks(dst, src)
			return
		}
		m.SetIV(iv)
		m.CryptBlocks(dst, src)
	case ecb:
		eachBlock(c.block.BlockSize(), dst, src, c.block.Encrypt)
	case ctr:
		c.count(w, dst, src)
	}
}

// open decrypts one sector.
func (c *Cipher) open(w *worker, dst, src []byte) {
	switch c.mode {
	case xts:
		c.xts(w, dst, src, c.block.Decrypt)
	case cbc:
		m := w.dec
		iv := w.iv[:c.block.BlockSize()]
		if m == nil {
			cipher.NewCBCDecrypter(c.block, iv).CryptBlocks(dst, src)
			return
		}
		m.SetIV(iv)
		m.CryptBlocks(dst, src)
	case ecb:
		eachBlock(c.block.BlockSize(), dst, src, c.block.Decrypt)
	case ctr:
		c.count(w, dst, src)
	}
}

func eachBlock(size int, dst, src []byte, f func(dst, src []byte)) {
	for at := 0; at < len(src); at += size {
		f(dst[at:at+size], src[at:at+size])
	}
}

// count runs one sector through counter mode, whose two directions are the same.
// The counter begins with the initialization vector and has its most significant
// byte first.
func (c *Cipher) count(w *worker, dst, src []byte) {
	iv := w.iv[:c.block.BlockSize()]
	for at := 0; at < Size; at += len(iv) {
		c.block.Encrypt(w.tweaks[at:at+len(iv)], iv)
		for i := len(iv) - 1; i >= 0; i-- {
			if iv[i]++; iv[i] != 0 {
				break
			}
		}
	}
	subtle.XORBytes(dst, src, w.tweaks[:])
}
