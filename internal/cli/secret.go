package cli

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"io"
	"os"
	"strings"

	"github.com/diskimg/diskimg/internal/sentence"
)

// This file is --object secret: passphrases for encrypted images. Their values
// are in no message, and cleared when the command ends.

// secret is the properties of one secret.
type secret map[string]string

func (s secret) has(key string) bool { _, ok := s[key]; return ok }

// defineSecret reads the properties of a secret.
func (o *objects) defineSecret(id string, d definition) error {
	s, err := readSecretProperties(d)
	if err != nil {
		return err
	}
	value, err := s.value()
	if err != nil {
		return err
	}
	if s.has("keyid") {
		sealed := value
		value, err = o.decrypt(s, sealed)
		clear(sealed)
		if err != nil {
			return err
		}
	}
	if o.secrets == nil {
		o.secrets = map[string][]byte{}
	}
	o.secrets[id] = value
	return nil
}

// readSecretProperties finds what is wrong with the properties before any file
// is read.
func readSecretProperties(d definition) (secret, error) {
	s := secret{}
	for _, key := range []string{"data", "file", "format", "iv", "keyid"} {
		value, given, err := d.text(key)
		if err != nil {
			return nil, err
		}
		if given {
			s[key] = value
		}
	}
	loaded, err := d.flag("loaded")
	if err != nil {
		return nil, err
	}
	if s.has("format") && s["format"] != "raw" && s["format"] != "base64" {
		return nil, failf("Parameter 'format' does not accept value '%s'", s["format"])
	}
	if err := d.rest(); err != nil {
		return nil, err
	}
	switch {
	case loaded:
		return nil, failf("Property 'secret.loaded' is not writable")
	case s.has("data") && s.has("file"):
		return nil, failf("'file' and 'data' are mutually exclusive")
	case !s.has("data") && !s.has("file"):
		return nil, failf("Either 'file' or 'data' must be provided")
	}
	return s, nil
}

// wellFormedID reports whether id is one: a letter, then letters, digits and
// "-._".
func wellFormedID(id string) bool {
	for i, c := range []byte(id) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789-._", rune(c))) {
			return false
		}
	}
	return id != ""
}

// maxSecret is how long a file with a secret may be, in bytes.
const maxSecret = 1 << 20

// value returns the bytes of the secret; with keyid they are encrypted.
func (s secret) value() ([]byte, error) {
	raw := []byte(s["data"])
	if s.has("file") {
		var err error
		if raw, err = readSecret(s["file"]); err != nil {
			return nil, err
		}
	}
	if s["format"] != "base64" {
		return raw, nil
	}
	defer clear(raw)
	return decode64(raw)
}

func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, failf("Unable to read %s: Failed to open file “%[1]s”: %[2]s", path, sentence.Of(err))
	}
	defer f.Close()
	b := make([]byte, maxSecret+1) // so that no part of it is left behind by growing
	n, err := io.ReadFull(f, b)
	switch {
	case err == nil:
		clear(b)
		return nil, failf("Unable to read %s: a secret has at most %d bytes", path, maxSecret)
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		return nil, failf("Unable to read %s: Error reading file “%[1]s”: %[2]s", path, sentence.Of(err))
	}
	return b[:n], nil
}

// decode64 decodes base64, without saying what it can't decode.
func decode64(text []byte) ([]byte, error) {
	value := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(value, text)
	if err != nil {
		clear(value)
		return nil, failf("Base64 data contains invalid characters")
	}
	return value[:n], nil
}

// decrypt decrypts a value with another secret: AES-256 in CBC mode, padded as
// in PKCS #7.
func (o *objects) decrypt(s secret, value []byte) ([]byte, error) {
	key, err := o.find(s["keyid"])
	if err != nil {
		return nil, err
	}
	if !s.has("iv") {
		return nil, failf("IV is required to decrypt secret")
	}
	iv, err := decode64([]byte(s["iv"]))
	if err != nil {
		return nil, err
	}
	switch {
	case len(key) != 32:
		return nil, failf("Key should be 32 bytes in length")
	case len(iv) != aes.BlockSize:
		return nil, failf("IV should be %d bytes in length not %d", aes.BlockSize, len(iv))
	case len(value) == 0 || len(value)%aes.BlockSize != 0:
		return nil, failf("Length %d must be a multiple of block size %d", len(value), aes.BlockSize)
	}
	c, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(value))
	cipher.NewCBCDecrypter(c, iv).CryptBlocks(out, value)
	return unpad(out)
}

// unpad removes the padding of the last block.
func unpad(b []byte) ([]byte, error) {
	n := int(b[len(b)-1])
	if n == 0 || n > aes.BlockSize {
		clear(b)
		return nil, failf("Incorrect number of padding bytes found on decrypted data")
	}
	return b[:len(b)-n], nil
}
