package luks_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/formats"
	"github.com/diskimg/diskimg/internal/model"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/luks"
	"github.com/diskimg/diskimg/storage"
)

// get returns the format with new disks that read as zero, as the suite wants
// them.
func get(t testing.TB, o map[string]string) blocktest.Format {
	f := formats.Get(t, "luks", o)
	f.MayAllocate = model.Race // the detector has pools lose what they hold
	create := f.Create
	f.Create = func(path string, o blocktest.CreateOptions) error {
		if err := create(path, o); err != nil {
			return err
		}
		img, err := f.Open(path, blocktest.OpenOptions{Writable: true})
		if err != nil {
			return err
		}
		return errors.Join(img.WriteZeroes(0, img.Size(), 0), img.Close())
	}
	return f
}

// The suite for every format.
func TestImage(t *testing.T) {
	blocktest.TestImage(t, get(t, map[string]string{"key-secret": qemu.SecretID, "iter-time": "1"}))
}

func passphrase() ([]byte, error) { return []byte(qemu.Passphrase), nil }

// A disk that we made is written by QEMU, read and written by us, and read by
// QEMU, with all ciphers and modes that both have.
func TestInTurns(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	for _, o := range []string{
		"cipher-alg=aes-256", "cipher-alg=aes-192", "cipher-alg=aes-128,hash-alg=sha1", "cipher-alg=twofish-256,hash-alg=sha512", "cipher-alg=twofish-128,cipher-mode=cbc",
		"cipher-alg=cast5-128,cipher-mode=cbc", "cipher-mode=cbc,ivgen-alg=essiv", "cipher-mode=cbc,ivgen-alg=plain", "cipher-mode=ctr", "cipher-mode=ecb", "hash-alg=ripemd160", "hash-alg=sha384", "hash-alg=sha224", "hash-alg=md5",
	} {
		t.Run(o, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "disk")
			made := map[string]string{"key-secret": qemu.SecretID, "iter-time": "1"}
			for _, setting := range strings.Split(o, ",") {
				key, value, _ := strings.Cut(setting, "=")
				made[key] = value
			}
			if err := formats.Get(t, "luks", made).Create(path, blocktest.CreateOptions{Size: 300 << 10}); err != nil {
				t.Fatal(err)
			}
			theirs := func(command string) {
				t.Helper()
				open := "open -o driver=luks,key-secret=" + qemu.SecretID + " " + path
				if out, err := qemu.TryIO(open, command); err != nil || bytes.Contains([]byte(out), []byte("failed")) {
					t.Errorf("%s: %v\n%s", command, err, out)
				}
			}
			theirs("write -q -P 5 0 300k")
			f, err := storage.OpenFile(path, &storage.FileOptions{Writable: true})
			if err != nil {
				t.Fatal(err)
			}
			img, err := luks.Open(f, &luks.OpenOptions{Writable: true, Passphrase: passphrase})
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 300<<10)
			if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{5}, len(got))) {
				t.Errorf("not what QEMU wrote, error %v", err)
			}
			if _, err := img.WriteAt(bytes.Repeat([]byte{6}, 5000), 1001); err != nil {
				t.Fatal(err)
			}
			if err := img.Close(); err != nil {
				t.Fatal(err)
			}
			theirs("read -q -P 6 1001 5000")
			theirs("read -q -P 5 0 1001")
			theirs("read -q -P 5 6001 200k")
		})
	}
}

// What a file can't be is refused: too short, without a passphrase.
func TestRefused(t *testing.T) {
	f := storage.NewMemory()
	if err := luks.Create(f, &luks.CreateOptions{Size: 1 << 20, IterTime: 1, Passphrase: passphrase}); err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		length int64
		o      luks.OpenOptions
		want   error
	}{
		"no passphrase":      {size, luks.OpenOptions{}, block.ErrPassphrase},
		"another":            {size, luks.OpenOptions{Passphrase: func() ([]byte, error) { return []byte("x"), nil }}, block.ErrPassphrase},
		"written, not read":  {size, luks.OpenOptions{NoIO: true, Writable: true}, block.ErrInvalid},
		"cut in the header":  {500, luks.OpenOptions{Passphrase: passphrase}, block.ErrFormat},
		"cut in a key slot":  {100_000, luks.OpenOptions{Passphrase: passphrase}, block.ErrCorrupt},
		"cut before the end": {size - 1<<20 - 512, luks.OpenOptions{Passphrase: passphrase}, block.ErrCorrupt},
	} {
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		short := storage.NewMemory()
		b := make([]byte, c.length)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := short.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := luks.Open(short, &c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := luks.Open(f, &luks.OpenOptions{NoIO: true}); err != nil {
		t.Error("opened to be described:", err)
	}
}
