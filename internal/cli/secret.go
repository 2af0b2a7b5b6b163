package cli

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
)

// This file is --object secret: passphrases for encrypted images. Their values
// are in no message, and cleared when the command ends.

// objects are the QEMU objects that are defined for a command.
type objects struct {
	secrets map[string][]byte
}

func (o *objects) option() option {
	return option{long: "object", arg: "OBJECT", help: "define a QEMU object: secret,id=ID,file=FILE (or data=TEXT)\nholds the passphrase of an encrypted image", set: o.define}
}

func (o *objects) wipe() {
	for _, value := range o.secrets {
		clear(value)
	}
}

// passphrase finds the secret for an image.
func (o *objects) passphrase(r diskimg.KeyRequest) ([]byte, error) {
	if r.Secret == "" {
		prefix := ""
		if r.Format == "qcow2" {
			prefix = "encrypt."
		}
		return nil, block.Errorf(block.ErrPassphrase, "Parameter '%skey-secret' is required for cipher", prefix)
	}
	return o.copyOf(r.Secret)
}

// copyOf returns a copy of a secret.
func (o *objects) copyOf(id string) ([]byte, error) {
	value, err := o.find(id)
	return slices.Clone(value), err
}

func (o *objects) find(id string) ([]byte, error) {
	value, ok := o.secrets[id]
	if !ok {
		return nil, block.Errorf(block.ErrPassphrase, "No secret with id '%s'", id)
	}
	return value, nil
}

// define reads the argument of one --object.
func (o *objects) define(arg string) error {
	s, err := parseObject(arg)
	if err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return err
	}
	value, err := s.value()
	if err != nil {
		return err
	}
	if s["keyid"] != "" {
		sealed := value
		value, err = o.decrypt(s, sealed)
		clear(sealed)
		if err != nil {
			return err
		}
	}
	if _, twice := o.secrets[s["id"]]; twice {
		clear(value)
		return failf("attempt to add duplicate property '%s' to object (type 'container')", s["id"])
	}
	if o.secrets == nil {
		o.secrets = map[string][]byte{}
	}
	o.secrets[s["id"]] = value
	return nil
}

// secret is the properties of one object.
type secret map[string]string

// parseObject reads an object in either form: type,key=value or JSON.
func parseObject(arg string) (secret, error) {
	s := secret{}
	if strings.HasPrefix(arg, "{") {
		var object map[string]string
		if json.Unmarshal([]byte(arg), &object) != nil {
			return nil, failf("JSON parse error in an object; it has to be as {\"qom-type\": \"secret\", \"id\": \"ID\", \"file\": \"FILE\"}")
		}
		maps.Copy(s, object)
		return s, nil
	}
	for i, p := range splitOptions(arg) {
		if i == 0 && p.bare {
			p.key, p.value = "qom-type", p.key
		}
		s[p.key] = p.value
	}
	return s, nil
}

var secretProperties = []string{"qom-type", "id", "data", "file", "format", "keyid", "iv", "loaded"}

func (s secret) has(key string) bool { _, ok := s[key]; return ok }

// check finds what is wrong with the properties before any file is read.
func (s secret) check() error {
	switch {
	case s["qom-type"] == "":
		return failf("Parameter 'qom-type' is missing")
	case s["qom-type"] != "secret":
		return failf("Parameter 'qom-type' does not accept value '%s'", s["qom-type"])
	case !s.has("id"):
		return failf("Parameter 'id' is missing")
	case !wellFormedID(s["id"]):
		return failf("Parameter 'id' expects an identifier\nIdentifiers consist of letters, digits, '-', '.', '_', starting with a letter.")
	case s.has("format") && s["format"] != "raw" && s["format"] != "base64":
		return failf("Parameter 'format' does not accept value '%s'", s["format"])
	}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if !slices.Contains(secretProperties, key) {
			return failf("Parameter '%s' is unexpected", key)
		}
	}
	switch {
	case s.has("data") && s.has("file"):
		return failf("'file' and 'data' are mutually exclusive")
	case !s.has("data") && !s.has("file"):
		return failf("Either 'file' or 'data' must be provided")
	}
	return nil
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
		return nil, failf("Unable to read %s: Failed to read from file “%[1]s”: %[2]s", path, sentence.Of(err))
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
