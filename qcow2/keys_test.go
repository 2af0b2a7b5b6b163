package qcow2_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// openWith opens an encrypted image with a passphrase.
func openWith(t *testing.T, path, secret string, writable bool) (*block.Image, error) {
	t.Helper()
	f, err := storage.OpenFile(path, &storage.FileOptions{Writable: writable})
	if err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(f, &qcow2.OpenOptions{Path: path, Writable: writable, Passphrase: func() ([]byte, error) { return []byte(secret), nil }})
	if err != nil {
		f.Close()
	}
	return img, err
}

// changeKeys changes key slots of the image at path, which the secret opens.
func changeKeys(t *testing.T, path, secret string, c block.KeyChange) error {
	t.Helper()
	img, err := openWith(t, path, secret, true)
	if err != nil {
		t.Fatal(err)
	}
	k, _ := block.As[block.KeyChanger](img)
	return errors.Join(k.ChangeKeys(c), img.Close())
}

// Key slots made and erased by QEMU and by us in turns, on one image.
func TestKeysInTurns(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	theirs := func(command string, secret string, args ...string) (string, int) {
		all := append([]string{command}, args...)
		for _, s := range []string{"first", "second", "third"} {
			all = append(all, "--object", "secret,id="+s+",data="+s)
		}
		if command != "create" {
			all = append(all, "--image-opts", "driver=qcow2,file.filename="+path+",encrypt.key-secret="+secret)
		} else {
			all = append(all, path, "1M")
		}
		_, stderr, code := qemu.TryCreate(all...)
		return stderr, code
	}
	must := func(stderr string, code int) {
		t.Helper()
		if code != 0 {
			t.Fatal(stderr)
		}
	}
	must(theirs("create", "", "-q", "-f", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=first,encrypt.iter-time=10"))
	img, err := openWith(t, path, "first", true)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{5}, 100_000)
	if _, err := img.WriteAt(want, 1000); err != nil {
		t.Fatal(err)
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	if err := changeKeys(t, path, "first", block.KeyChange{New: []byte("second"), IterTime: time.Microsecond}); err != nil {
		t.Fatal(err)
	}
	must(theirs("check", "second"))
	must(theirs("amend", "second", "-o", "encrypt.state=active,encrypt.new-secret=third,encrypt.keyslot=6,encrypt.iter-time=10"))
	if err := changeKeys(t, path, "third", block.KeyChange{Erase: true, Old: []byte("first")}); err != nil {
		t.Fatal(err)
	}
	if stderr, code := theirs("check", "first"); code == 0 || !strings.Contains(stderr, "Invalid password, cannot unlock any keyslot") {
		t.Errorf("QEMU opens it with an erased passphrase: %s", stderr)
	}
	must(theirs("amend", "third", "-o", "encrypt.state=inactive,encrypt.old-secret=second"))
	if _, err := openWith(t, path, "second", false); !errors.Is(err, block.ErrPassphrase) {
		t.Errorf("a passphrase that QEMU has erased: %v", err)
	}
	if img, err = openWith(t, path, "third", false); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := img.ReadAt(got, 1000); err != nil || !bytes.Equal(got, want) {
		t.Errorf("another content, error %v", err)
	}
	if err := errors.Join(checkNoCorruption(img, true), img.Close()); err != nil {
		t.Error(err)
	}
}

// Images without key slots say so.
func TestKeysOfOthers(t *testing.T) {
	for want, e := range map[string]qcow2.Encryption{
		"Can't amend encryption options - encryption not present": qcow2.NoEncryption,
		"Only LUKS encryption options can be amended":             qcow2.AES,
	} {
		f := storage.NewMemory()
		if err := qcow2.Create(f, &qcow2.CreateOptions{Size: 1 << 20, Encryption: e, Passphrase: passphrase}); err != nil {
			t.Fatal(err)
		}
		img, err := qcow2.Open(f, &qcow2.OpenOptions{Writable: true, Passphrase: passphrase})
		if err != nil {
			t.Fatal(err)
		}
		k, _ := block.As[block.KeyChanger](img)
		if err := k.ChangeKeys(block.KeyChange{New: []byte("x")}); err == nil || err.Error() != want {
			t.Errorf("%v: %v", e, err)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	}
}
