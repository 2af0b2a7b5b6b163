package luks

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage"
)

func TestDerive(t *testing.T) {
	for _, n := range []int{1, 20, 32, 33, 64} {
		want, err := pbkdf2.Key(sha256.New, "passphrase", []byte("salt"), 100, n)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, n)
		derive(sha256.New, []byte("passphrase"), []byte("salt"), 100, got)
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %x, the standard library has %x", n, got, want)
		}
	}
}

func TestSplit(t *testing.T) {
	for _, n := range []int{16, 20, 32, 48, 64} {
		key := bytes.Repeat([]byte{7}, n)
		material := make([]byte, n*Stripes)
		split(sha1.New, key, material)
		if !bytes.Equal(merge(sha1.New, material, n), key) {
			t.Errorf("a key of %d bytes does not come back", n)
		}
		material[n*Stripes/2] ^= 1
		if bytes.Equal(merge(sha1.New, material, n), key) {
			t.Errorf("a key of %d bytes comes back without all its parts", n)
		}
	}
}

func TestIterations(t *testing.T) {
	for _, c := range []struct {
		perSecond float64
		t         time.Duration
		key       int
		want      uint32
	}{
		{1e6, time.Second, 32, 1e6}, {1e6, time.Second, 64, 5e5}, {1e6, 2 * time.Second, 20, 2e6},
		{1e6, time.Microsecond, 32, MinIterations}, {1e9, time.Hour, 32, MaxWork / 16}, {1e9, time.Hour, 64, MaxWork / 32},
	} {
		if got := iterationsFor(sha256.New, c.perSecond, c.t, c.key); got != c.want {
			t.Errorf("%v: %d", c, got)
		}
	}
	if r := rate(sha256.New, 0); r < 1000 || math.IsInf(r, 0) {
		t.Errorf("%v iterations a second", r)
	}
}

const quick = time.Microsecond

func create(t *testing.T, o *CreateOptions) (*storage.Memory, *Header) {
	t.Helper()
	f := storage.NewMemory()
	h, _, err := o.Create(f, []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(h.Payload); err != nil {
		t.Fatal(err)
	}
	return f, h
}

func reread(t *testing.T, f Area, area int64) *Header {
	t.Helper()
	h, err := Read(f, area)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// All ciphers that can be made can be opened.
func TestCiphers(t *testing.T) {
	for _, o := range []CreateOptions{
		{}, {Cipher: "aes-128"}, {Cipher: "aes-192"}, {Mode: "ctr"}, {Cipher: "cast5-128", Mode: "ctr", IVGen: "plain"}, {Mode: "cbc", IVGen: "essiv"}, {Cipher: "aes-128", Mode: "cbc", IVGen: "essiv", IVHash: "md5"},
		{Mode: "ecb", IVGen: "plain"}, {Cipher: "twofish-256"}, {Cipher: "twofish-128", Mode: "cbc"}, {Cipher: "twofish-192"}, {Cipher: "cast5-128", Mode: "cbc"},
		{Hash: "sha1"}, {Hash: "sha512"}, {Hash: "ripemd160"}, {Hash: "sha384"}, {Hash: "sha224"}, {Hash: "md5"},
	} {
		o.IterTime = quick
		f, made := create(t, &o)
		h := reread(t, f, made.Payload)
		if _, err := h.Open(f, []byte("first")); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
		if _, err := h.Open(f, []byte("First")); !errors.Is(err, block.ErrPassphrase) {
			t.Errorf("%+v, another passphrase: %v", o, err)
		}
		if o.Cipher != "" && h.CipherName() != o.Cipher {
			t.Errorf("%+v: called %s", o, h.CipherName())
		}
	}
}

func TestCreateRefused(t *testing.T) {
	for want, o := range map[string]CreateOptions{
		"Algorithm 'serpent-256' not supported":                             {Cipher: "serpent-256"},
		"Parameter 'cipher-alg' does not accept value 'foo'":                {Cipher: "foo"},
		"Parameter 'cipher-mode' does not accept value 'foo'":               {Mode: "foo"},
		"Parameter 'ivgen-alg' does not accept value 'foo'":                 {IVGen: "foo"},
		"Parameter 'ivgen-hash-alg' does not accept value 'f'":              {IVHash: "f"},
		"Parameter 'hash-alg' does not accept value 'foo'":                  {Hash: "foo"},
		"QEMU has no key material of 96000 bytes: it is no multiple of 512": {Cipher: "aes-192", Mode: "cbc"},
		"No AES cipher with key size 20 available":                          {IVGen: "essiv", IVHash: "sha1"},
		"Unsupported cipher mode xts":                                       {Cipher: "cast5-128"},
		"Parameter 'iter-time' must not be negative":                        {IterTime: -1},
	} {
		if _, err := o.Layout(); err == nil || err.Error() != want {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
}

// Headers made to do harm: each is refused before memory or time is taken.
func TestHostile(t *testing.T) {
	f, h := create(t, &CreateOptions{IterTime: quick})
	good := h.Encode()
	slot := func(i, field int) int { return slotsAt + i*slotSize + field }
	for _, c := range []struct {
		what  string
		at    int
		value []byte
		want  string
	}{
		{"magic", 0, []byte("XUKS"), "not in LUKS format"},
		{"version 2", 6, []byte{0, 2}, "LUKS version 2"},
		{"name without end", 8, bytes.Repeat([]byte("a"), 32), "not NUL terminated"},
		{"huge key", 108, []byte{0xff, 0xff, 0xff, 0xff}, "LUKS key of 4294967295 bytes"},
		{"no key", 108, make([]byte, 4), "LUKS key of 0 bytes"},
		{"digest iterations", 164, []byte{0xff, 0xff, 0xff, 0xff}, "iteration count 4294967295 is larger than the limit"},
		{"no digest iterations", 164, make([]byte, 4), "iteration count is zero"},
		{"slot state", slot(3, 0), []byte{1, 2, 3, 4}, "Keyslot 3 state"},
		{"slot iterations", slot(0, 4), []byte{0xff, 0xff, 0xff, 0xff}, "Keyslot 0 iteration count 4294967295"},
		{"no slot iterations", slot(0, 4), make([]byte, 4), "Keyslot 0 iteration count is zero"},
		{"slot in header", slot(2, 40), make([]byte, 4), "Keyslot 2 is overlapping with the LUKS header"},
		{"slot on slot", slot(2, 40), []byte{0, 0, 0, 9}, "Keyslots 0 and 2 are overlapping"},
		{"slot on payload", slot(2, 40), []byte{0, 0, 15, 0}, "Keyslot 2 is overlapping with the encrypted payload"},
		{"slot far away", slot(2, 40), []byte{0xff, 0xff, 0xff, 0xff}, "Keyslot 2 is overlapping with the encrypted payload"},
		{"stripes", slot(1, 44), []byte{0xff, 0xff, 0xff, 0xff}, "Keyslot 1 is corrupted (stripes 4294967295 != 4000)"},
		{"payload", 104, make([]byte, 4), "overlapping with the encrypted payload"},
	} {
		b := bytes.Clone(good)
		copy(b[c.at:], c.value)
		if _, err := Parse(b, h.Payload); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if _, err := Parse(good, h.Payload-align); !errors.Is(err, block.ErrCorrupt) {
		t.Error("an area too short:", err)
	}
	if _, err := Parse(good[:Size-1], h.Payload); !errors.Is(err, block.ErrFormat) {
		t.Error("a header cut short:", err)
	}
	slow := *h
	for i := range slow.Slots {
		slow.Slots[i].Active, slow.Slots[i].Iterations = true, MaxIterations
	}
	for what, try := range map[string]func() error{
		"opened":   func() error { _, err := slow.Open(f, []byte("first")); return err },
		"searched": func() error { _, err := slow.matching(f, []byte("first")); return err },
	} {
		if err := try(); !errors.Is(err, block.ErrUnsupported) || !strings.Contains(err.Error(), "asks for 1600008000 iterations") {
			t.Errorf("eight slow slots, %s: %v", what, err)
		}
	}
	for _, change := range []func(h *Header){
		func(h *Header) { h.Cipher = "serpent" }, func(h *Header) { h.Mode = "lrw-benbi" }, func(h *Header) { h.Hash = "whirlpool" },
	} {
		odd := *h
		change(&odd)
		if _, err := odd.Open(f, []byte("first")); !errors.Is(err, block.ErrUnsupported) {
			t.Errorf("%s, %s, %s: %v", odd.Cipher, odd.Mode, odd.Hash, err)
		}
	}
}

// What parses is within the limits, and is written as it was read.
func FuzzHeader(f *testing.F) {
	o := CreateOptions{}
	h, err := o.Layout()
	if err != nil {
		f.Fatal(err)
	}
	h.Iterations, h.UUID = 1000, newUUID()
	f.Add(h.Encode(), h.Payload)
	f.Add(h.Encode()[:100], int64(0))
	f.Fuzz(func(t *testing.T, b []byte, area int64) {
		h, err := Parse(b, area)
		if err != nil {
			return
		}
		again, err := Parse(h.Encode(), area)
		if err != nil || *again != *h {
			t.Fatalf("%+v became %+v (%v)", h, again, err)
		}
		if h.Iterations > MaxIterations || h.KeyBytes > maxKeyBytes {
			t.Fatalf("over the limits: %+v", h)
		}
		for _, s := range h.Slots {
			if s.Offset < Size || s.Offset+h.materialSize() > area {
				t.Fatalf("out of the area of %d bytes: %+v", area, s)
			}
		}
	})
}
