package qcow2

import (
	"io"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/luks"
	"github.com/diskimg/diskimg/internal/sectors"
)

// Encrypted images: which cipher, and what gives a sector its number. Facts:
// qcow2 specification, "Header" (crypt_method), "Full disk encryption header
// pointer" and "Data encryption".
//
// A sector that is written in part is read first, so writers of an encrypted
// image keep out of each other's sectors: writeRun locks them, before any other
// lock.

// Encryption is how an image is encrypted.
type Encryption uint8

const (
	// NoEncryption leaves the guest's data as it is.
	NoEncryption Encryption = cryptNone
	// AES is the legacy encryption: AES-128 in CBC mode, its key the first 16
	// bytes of the passphrase. It is weak; for images that have it already.
	AES Encryption = cryptAES
	// LUKS keeps the key in a LUKS1 header inside the image.
	LUKS Encryption = cryptLUKS
)

func (e Encryption) String() string { return [...]string{"", "aes", "luks", ""}[e&3] }

// LUKSOptions say how LUKS is to encrypt; empty is what QEMU does.
type LUKSOptions struct {
	Cipher   string        // aes-128, aes-256 (default), twofish-256, cast5-128 …
	Mode     string        // xts (default), cbc, ctr or ecb
	IVGen    string        // plain, plain64 (default) or essiv
	IVHash   string        // for essiv; sha256
	Hash     string        // sha256
	IterTime time.Duration // spent on a passphrase each time the image is opened; 2 s
}

func (o LUKSOptions) create() *luks.CreateOptions {
	return &luks.CreateOptions{Cipher: o.Cipher, Mode: o.Mode, IVGen: o.IVGen, IVHash: o.IVHash, Hash: o.Hash, IterTime: o.IterTime}
}

// encryption is that of an open image.
type encryption struct {
	cipher *sectors.Cipher // nil: nobody has asked for the passphrase
	// ask is for the passphrase, once more; nil if nobody knows it.
	ask func() ([]byte, error)
	// byHost numbers sectors by their place in the file, else by that on the
	// guest disk.
	byHost bool
}

// position is what a sector's number is made of, see sectors.
func (c *encryption) position(host hostOff, off guestOff) int64 {
	if c.byHost {
		return int64(host)
	}
	return int64(off)
}

// passphrase asks for it.
func passphrase(method uint32, ask func() ([]byte, error)) ([]byte, error) {
	if ask == nil {
		return nil, block.Errorf(block.ErrPassphrase, "the image is encrypted (%s) and no passphrase is given", Encryption(method))
	}
	return ask()
}

// openCrypt makes an encrypted image readable.
func (d *disk) openCrypt(o *OpenOptions) error {
	if err := d.hdr.isEncrypted(o.EncryptFormat); err != nil || d.hdr.cryptMethod == cryptNone {
		return err
	}
	if o.NoIO {
		d.crypt = &encryption{}
		return nil
	}
	p, err := passphrase(d.hdr.cryptMethod, o.Passphrase)
	if err != nil {
		return err
	}
	defer clear(p)
	if d.hdr.cryptMethod == cryptAES {
		return d.useAES(p)
	}
	h, area, err := d.luksHeader()
	if err != nil {
		return err
	}
	c, err := h.Open(area, p)
	d.crypt = &encryption{cipher: c, byHost: true, ask: o.Passphrase}
	return err
}

// isEncrypted refuses an image that is not encrypted as the caller says.
func (h *header) isEncrypted(as string) error {
	is := Encryption(h.cryptMethod).String()
	switch {
	case as == "" || as == is:
		return nil
	case is == "":
		return block.Invalidf("No encryption in image header, but options specified format '%s'", as)
	}
	return block.Invalidf("Header reported '%s' encryption format but options specify '%s'", is, as)
}

const aesKey = 16

// useAES takes the key from the first bytes of the passphrase; missing ones are
// zero.
func (d *disk) useAES(p []byte) error {
	key := make([]byte, aesKey)
	defer clear(key)
	copy(key, p)
	c, err := sectors.New("aes", "cbc-plain64", key)
	d.crypt = &encryption{cipher: c}
	return err
}

// luksHeader reads the LUKS header and returns it with the place that it has.
func (d *disk) luksHeader() (*luks.Header, *luksArea, error) {
	off, n, err := d.hdr.luksPlace()
	if err != nil {
		return nil, nil, err
	}
	if err := d.inFile("encryption header", off, n); err != nil {
		return nil, nil, err
	}
	area := &luksArea{d.file, int64(off), n}
	h, err := luks.Read(area, n)
	return h, area, err
}

// luksPlace decodes the extension that says where the LUKS header is.
func (h *header) luksPlace() (off uint64, n int64, err error) {
	b := h.find(extCrypto)
	switch {
	case b == nil:
		return 0, 0, block.Corruptf("Missing CRYPTO header for crypt method 2")
	case len(b) != 16:
		return 0, 0, block.Corruptf("CRYPTO header extension size %d, but expected size 16", len(b))
	}
	t := decodeTable(b)
	switch {
	case t[0]%uint64(h.clusterSize()) != 0:
		return 0, 0, block.Corruptf("Encryption header offset '%d' is not a multiple of cluster size '%d'", t[0], h.clusterSize())
	case t[0] >= maxHostOffset || t[1] >= maxHostOffset:
		return 0, 0, block.Corruptf("Encryption header of %d bytes at %#x is beyond what can be", t[1], t[0])
	}
	return t[0], int64(t[1]), nil
}

// luksArea is the part of a file in which the LUKS header and its key material
// lie. It implements luks.Area.
type luksArea struct {
	file block.File
	off  int64
	size int64
}

// ReadAt implements io.ReaderAt.
func (a *luksArea) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > a.size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), a.size-off)
	k, err := a.file.ReadAt(p[:n], a.off+off)
	if err == nil && n < int64(len(p)) {
		err = io.EOF
	}
	return k, err
}

// WriteAt implements io.WriterAt. What would go beyond the area is refused.
func (a *luksArea) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > a.size-int64(len(p)) {
		return 0, block.Errorf(block.ErrBounds, "%d bytes at %d do not lie in the encryption header of %d bytes", len(p), off, a.size)
	}
	return a.file.WriteAt(p, a.off+off)
}

// Sync makes it durable.
func (a *luksArea) Sync() error { return a.file.Sync() }

// encrypt makes a new image that holds nothing yet an encrypted one.
func (d *disk) encrypt(o *CreateOptions) error {
	if o.Encryption == NoEncryption {
		return nil
	}
	p, err := passphrase(uint32(o.Encryption), o.Passphrase)
	if err != nil {
		return err
	}
	defer clear(p)
	if o.Encryption == AES {
		return d.useAES(p)
	}
	return d.createLUKS(o.LUKS.create(), p)
}

// createLUKS makes a LUKS header in clusters of its own, and the first cluster
// name it.
func (d *disk) createLUKS(o *luks.CreateOptions, p []byte) error {
	h, err := o.Layout()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.geo.clusters(h.Payload)
	run, err := d.alloc(n)
	if err != nil {
		return err
	}
	area := &luksArea{d.file, int64(run.off(&d.geo)), h.Payload}
	_, c, err := o.Create(area, p)
	if err != nil {
		return err
	}
	d.crypt = &encryption{cipher: c, byHost: true}
	d.claim(metaCrypt, run.off(&d.geo), h.Payload)
	copy(d.hdr.find(extCrypto), encodeTable([]uint64{uint64(area.off), uint64(area.size)}))
	first, err := d.hdr.encode()
	if err == nil {
		_, err = d.file.WriteAt(first, 0)
	}
	return err
}

// readEncrypted fills p with what the extent e holds at guest offset off.
func (d *disk) readEncrypted(e block.Extent, p []byte, off int64) error {
	if d.crypt.cipher == nil {
		return block.Errorf(block.ErrPassphrase, "the image is encrypted and was opened without its passphrase")
	}
	host := e.Offset + off - e.Start
	return d.crypt.cipher.ReadAt(e.File, p, host, d.crypt.position(hostOff(host), guestOff(off)))
}

// writeData writes guest data to its place.
func (d *disk) writeData(p []byte, host hostOff, off guestOff) error {
	if d.crypt == nil {
		_, err := d.data.WriteAt(p, int64(host))
		return err
	}
	return d.crypt.cipher.WriteAt(d.data, p, int64(host), d.crypt.position(host, off))
}

// undecoded turns an extent of data into one that must be decrypted.
func (d *disk) undecoded(x block.Extent) block.Extent {
	if d.crypt != nil && x.Kind == block.Data {
		x.Kind, x.HasOffset, x.MayBeZero = block.Special, false, false
	}
	return x
}

// sectorEdge moves an edge of what has to be filled outwards to the end of its
// sector, if sectors are encrypted.
func (d *disk) sectorEdge(at, outer guestOff) guestOff {
	switch {
	case d.crypt == nil:
		return at
	case outer < at:
		return at &^ (sectors.Size - 1)
	}
	return (at + sectors.Size - 1) &^ (sectors.Size - 1)
}

// zeroPlaces reports whether space that is set aside reads as zero by its
// entry. It does not have to unless data is encrypted: then what has never been
// written reads as noise.
func (d *disk) zeroPlaces() bool {
	return d.crypt != nil && d.geo.v3 && d.hdr.autoclear&autoclearRawData == 0
}
