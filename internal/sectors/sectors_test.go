package sectors

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	oldxts "golang.org/x/crypto/xts"
)

func noise(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// Each sector against the same mode written by others.
func TestModes(t *testing.T) {
	key := noise(1, 64)
	number := func(n uint64) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), make([]byte, 8)...) }
	oldXTS := func(dst, src []byte, n uint64) {
		c, err := oldxts.NewCipher(aes.NewCipher, key)
		if err != nil {
			t.Fatal(err)
		}
		c.Encrypt(dst, src, n)
	}
	plainCBC := func(iv func(uint64) []byte) func(dst, src []byte, n uint64) {
		return func(dst, src []byte, n uint64) {
			b, _ := aes.NewCipher(key[:32])
			cipher.NewCBCEncrypter(b, iv(n)).CryptBlocks(dst, src)
		}
	}
	essiv := func(n uint64) []byte {
		sum := sha256.Sum256(key[:32])
		b, _ := aes.NewCipher(sum[:])
		iv := number(n)
		b.Encrypt(iv, iv)
		return iv
	}
	counter := func(dst, src []byte, n uint64) {
		b, _ := aes.NewCipher(key[:32])
		cipher.NewCTR(b, number(n)).XORKeyStream(dst, src)
	}
	for mode, other := range map[string]func(dst, src []byte, n uint64){
		"xts-plain64":      oldXTS,
		"xts-plain":        func(dst, src []byte, n uint64) { oldXTS(dst, src, uint64(uint32(n))) },
		"cbc-plain64":      plainCBC(number),
		"ctr-plain64":      counter,
		"cbc-essiv:sha256": plainCBC(essiv),
	} {
		k := key
		if mode[:3] != "xts" {
			k = key[:32]
		}
		c, err := New("aes", mode, k)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []uint64{0, 1, 77, 1<<32 + 5} {
			src, got, want := noise(n, Size), make([]byte, Size), make([]byte, Size)
			other(want, src, n)
			c.Encrypt(got, src, n)
			if !bytes.Equal(got, want) {
				t.Errorf("%s, sector %d: not what others make", mode, n)
			}
			c.Decrypt(got, got, n)
			if !bytes.Equal(got, src) {
				t.Errorf("%s, sector %d: decrypted to something else", mode, n)
			}
		}
	}
}

var all = []struct {
	name, mode string
	key        int
}{
	{"aes", "xts-plain64", 64}, {"aes", "xts-plain64", 32}, {"aes", "cbc-plain", 16}, {"aes", "cbc-essiv:sha256", 32}, {"aes", "ecb-plain", 24},
	{"twofish", "xts-plain64", 64}, {"twofish", "cbc-essiv:md5", 16}, {"cast5", "cbc-plain64", 16}, {"cast5", "ecb-plain", 16}, {"aes", "ctr-plain64", 32}, {"cast5", "ctr-plain", 16},
}

// Reads and writes at any place, against a slice of bytes.
func TestFile(t *testing.T) {
	for _, k := range all {
		c, err := New(k.name, k.mode, noise(3, k.key))
		if err != nil {
			t.Fatal(err)
		}
		f, disk := &memory{}, noise(4, 2*chunk+Size)
		r := rand.New(rand.NewPCG(1, 2))
		const off, pos = 4096, 7 * Size
		if err := c.WriteAt(f, disk, off, pos); err != nil {
			t.Fatal(err)
		}
		for range 200 {
			at := r.IntN(len(disk))
			n := r.IntN(min(len(disk)-at, 3000) + 1)
			if r.IntN(20) == 0 {
				n = len(disk) - at
			}
			if r.IntN(2) == 0 {
				p := noise(uint64(at), n)
				copy(disk[at:], p)
				if err := c.WriteAt(f, p, off+int64(at), pos+int64(at)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			got := make([]byte, n)
			if err := c.ReadAt(f, got, off+int64(at), pos+int64(at)); err != nil || !bytes.Equal(got, disk[at:at+n]) {
				t.Fatalf("%v: %d bytes at %d: wrong content (%v)", k, n, at, err)
			}
		}
		if bytes.Contains(f.b, disk[:16]) {
			t.Errorf("%v: the file has plain text", k)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	for _, k := range all {
		c, err := New(k.name, k.mode, noise(3, k.key))
		if err != nil {
			t.Fatal(err)
		}
		f, b := &memory{b: make([]byte, 8<<10)}, make([]byte, 4096)
		n := testing.AllocsPerRun(50, func() {
			if err := errors.Join(c.ReadAt(f, b, 100, 100), c.ReadAt(f, b, 0, 0), c.WriteAt(f, b, 512, 0)); err != nil {
				t.Fatal(err)
			}
		})
		// A pool may be emptied by a collection in between.
		if n > 1 && !raceDetector && k.name != "twofish" {
			t.Errorf("%v: %v allocations", k, n)
		}
	}
}

// What is not known is refused by its name.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, mode string
		key        int
		want       string
	}{
		{"serpent", "xts-plain64", 64, "Algorithm 'serpent' with key size 64 bytes not supported"},
		{"aes", "lrw-plain64", 32, "Cipher mode 'lrw' not supported"},
		{"aes", "xts-plain64", 63, "Algorithm 'aes' with key size 63 bytes not supported"},
		{"aes", "xts-plain64", 0, "Algorithm 'aes' with key size 0 bytes not supported"},
		{"aes", "xts-benbi", 64, "Unsupported IV generator benbi"},
		{"aes", "cbc", 32, "Unsupported IV generator "},
		{"aes", "cbc-essiv:sha1", 32, "No AES cipher with key size 20 available"},
		{"aes", "cbc-essiv:whirlpool", 32, "Hash algorithm 'whirlpool' not supported"},
		{"cast5", "xts-plain64", 32, "Unsupported cipher mode xts"},
		{"cast5", "cbc-essiv:md5", 16, "Cipher cast5 not supported with essiv"},
	} {
		_, err := New(c.name, c.mode, make([]byte, c.key))
		if !errors.Is(err, block.ErrUnsupported) || err.Error() != c.want {
			t.Errorf("%v: %v", c, err)
		}
	}
}

// memory is a file that grows.
type memory struct{ b []byte }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m.b)) {
		return 0, io.EOF
	}
	n := copy(p, m.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

func (m *memory) Sync() error { return nil }

func BenchmarkXTS(b *testing.B) {
	c, err := New("aes", "xts-plain64", noise(1, 64))
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		c.Decrypt(p, p, 1)
	}
}

func BenchmarkCBC(b *testing.B) {
	c, err := New("aes", "cbc-plain64", noise(1, 16))
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		c.Decrypt(p, p, 1)
	}
}

// halves is a file that writes the first half of what it is to write long before
// the second.
type halves struct {
	data   []byte
	begun  chan struct{}
	finish chan struct{}
}

func (h *halves) ReadAt(p []byte, off int64) (int, error) { return copy(p, h.data[off:]), nil }

func (h *halves) WriteAt(p []byte, off int64) (int, error) {
	n := copy(h.data[off:], p[:len(p)/2])
	close(h.begun)
	<-h.finish
	return n + copy(h.data[int(off)+n:], p[n:]), nil
}

// A sector that is read while it is written is as before or after.
func TestReadBesideWrite(t *testing.T) {
	c, err := New("aes", "cbc-plain64", make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	f := &halves{make([]byte, Size), make(chan struct{}), make(chan struct{})}
	old, next := bytes.Repeat([]byte{1}, Size), bytes.Repeat([]byte{2}, Size)
	c.Encrypt(f.data, old, 0)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.WriteAt(f, next, 0, 0); err != nil {
			t.Error(err)
		}
	})
	<-f.begun
	got := make([]byte, Size)
	wg.Go(func() {
		if err := c.ReadAt(f, got, 0, 0); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(20 * time.Millisecond) // enough for a read that does not wait
	close(f.finish)
	wg.Wait()
	if !bytes.Equal(got, old) && !bytes.Equal(got, next) {
		t.Errorf("read %x", got)
	}
}
