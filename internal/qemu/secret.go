package qemu

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Passphrase is that of all encrypted images of tests, SecretID the name by
// which creation options call it, and Secret the arguments that define it.
const (
	Passphrase = "a passphrase"
	SecretID   = "key"
)

// Secret are the arguments that define the passphrase for QEMU's programs.
var Secret = []string{"--object", "secret,id=" + SecretID + ",data=" + Passphrase}

// encrypted reports whether the file is an encrypted qcow2 image: one with a
// crypt_method.
func encrypted(path, format string) bool {
	b, err := readHead(path)
	return err == nil && format == "qcow2" && isQcow2(b) && binary.BigEndian.Uint32(b[32:]) != 0
}

// Image returns the arguments that name an image, encrypted or not.
func Image(path, format string) []string {
	if keys(path, format) == "" {
		return []string{"-f", format, path}
	}
	return append(Secret[:2:2], "--image-opts", describe(path, format))
}

// describe writes an image as --image-opts takes it.
func describe(path, format string) string {
	return "driver=" + format + ",file.driver=file,file.filename=" + strings.ReplaceAll(path, ",", ",,") + keys(path, format)
}

// keys names the passphrase for each encrypted image of a chain of qcow2 images.
func keys(path, format string) (s string) {
	for below := ""; path != ""; below += "backing." {
		if encrypted(path, format) {
			s += "," + below + "encrypt.key-secret=" + SecretID
		}
		path = backing(path)
	}
	return s
}

// backing returns the path of the image below a qcow2 image, empty if there is
// none.
func backing(path string) string {
	b, err := readHead(path)
	if err != nil || !isQcow2(b) {
		return ""
	}
	at, n := binary.BigEndian.Uint64(b[8:]), uint64(binary.BigEndian.Uint32(b[16:]))
	if at == 0 || at+n > uint64(len(b)) {
		return ""
	}
	if name := string(b[at : at+n]); filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(path), string(b[at:at+n]))
}

// TryCompare compares two images, encrypted or not.
func TryCompare(a, formatA, b, formatB string) (stdout, stderr string, code int) {
	return TryImg("compare", Secret[0], Secret[1], "--image-opts", describe(a, formatA), describe(b, formatB))
}

// NoClock is what qemu-img says now and then when it makes a LUKS header on a
// fast machine.
const NoClock = "Unable to get accurate CPU usage"

// TryCreate is TryImg for commands that make images. It tries again where QEMU
// could not measure how fast the machine is.
func TryCreate(args ...string) (stdout, stderr string, code int) {
	for range 50 {
		if stdout, stderr, code = TryImg(args...); !strings.Contains(stderr, NoClock) {
			break
		}
	}
	return stdout, stderr, code
}

func isQcow2(b []byte) bool { return len(b) >= 72 && string(b[:4]) == "QFI\xfb" }

// readHead reads the first bytes of a file.
func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 64<<10))
}
