package diskimg

// This file is the options of encrypted images, and the format of encrypted
// disks.

import (
	"context"
	"slices"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/luks"
	"github.com/diskimg/diskimg/qcow2"
)

// luksOptions are those of a LUKS header, their names after prefix.
func luksOptions(prefix string) []Option {
	return []Option{
		{Name: prefix + "cipher-alg", Help: "Name of encryption cipher algorithm"},
		{Name: prefix + "cipher-mode", Help: "Name of encryption cipher mode"},
		{Name: prefix + "ivgen-alg", Help: "Name of IV generator algorithm"},
		{Name: prefix + "ivgen-hash-alg", Help: "Name of IV generator hash algorithm"},
		{Name: prefix + "hash-alg", Help: "Name of encryption hash algorithm"},
		{Name: prefix + "iter-time", Type: Number, Help: "Time to spend in PBKDF in milliseconds"},
	}
}

// keyOptions are those by which key slots are changed, their names after prefix.
func keyOptions(prefix string) []Option {
	return []Option{
		{Name: prefix + "state", Help: "Select new state of affected keyslots (active/inactive)"},
		{Name: prefix + "new-secret", Help: "New secret to set in the matching keyslots. Empty string to erase"},
		{Name: prefix + "old-secret", Help: "Select all keyslots that match this password"},
		{Name: prefix + "keyslot", Type: Number, Help: "Select a single keyslot to modify explicitly"},
		{Name: prefix + "iter-time", Type: Number, Help: "Time to spend in PBKDF in milliseconds"},
	}
}

// changesKeys reports whether the settings have any of those.
func (s *Settings) changesKeys(prefix string) bool {
	return slices.ContainsFunc(keyOptions(prefix), func(o Option) bool { return s.Has(o.Name) })
}

// keyChange returns the change of key slots that the settings ask for. The
// caller wipes it.
func (s *Settings) keyChange(prefix string, c AmendControl) (k *block.KeyChange, err error) {
	if !s.Has(prefix + "state") {
		return nil, block.Invalidf("Parameter 'state' is missing")
	}
	k = &block.KeyChange{Force: c.Force, IterTime: s.iterTime(prefix)}
	if s.Has(prefix + "keyslot") {
		slot := int(s.Number(prefix + "keyslot"))
		k.Slot = &slot
	}
	if k.Erase, err = choose(s, prefix+"state", "state", map[string]bool{"active": false, "inactive": true}); err != nil {
		return nil, err
	}
	if k.New, err = s.secret(prefix+"new-secret", c); err != nil {
		return nil, err
	}
	if k.Old, err = s.secret(prefix+"old-secret", c); err != nil {
		wipe(k)
		return nil, err
	}
	return k, nil
}

// secret returns the passphrase that an option names, nil if it is not set.
func (s *Settings) secret(option string, c AmendControl) ([]byte, error) {
	switch {
	case !s.Has(option):
		return nil, nil
	case c.Secret == nil:
		return nil, block.Errorf(block.ErrPassphrase, "No secret with id '%s'", s.Text(option))
	}
	p, err := c.Secret(s.Text(option))
	if p == nil {
		p = []byte{}
	}
	return p, err
}

// wipe clears the passphrases of a change; nil is none.
func wipe(k *block.KeyChange) {
	if k != nil {
		clear(k.New)
		clear(k.Old)
	}
}

// encryptOptions are those of a format in which encryption is a choice.
func encryptOptions(prefix string) []Option {
	return append([]Option{
		{Name: "encryption", Type: Switch, Help: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"},
		{Name: prefix + "format", Help: "Encrypt the image, format choices: 'aes', 'luks'"},
		{Name: prefix + "key-secret", Help: "ID of secret providing qcow AES key or LUKS passphrase"},
	}, luksOptions(prefix)...)
}

// encryption is what kind of it the settings ask for.
func (s *Settings) encryption() (qcow2.Encryption, error) {
	switch {
	case s.Switch("encryption") && s.Has("encrypt.format"):
		return 0, block.Invalidf("'encrypt.format' and its alias 'encryption' can't be used at the same time")
	case s.Switch("encryption"):
		return qcow2.AES, s.without(luksOptions("encrypt."))
	case !s.Has("encrypt.format"):
		for _, o := range encryptOptions("encrypt.")[2:] {
			if s.Has(o.Name) {
				return 0, block.Invalidf("Parameter 'encrypt.format' is missing")
			}
		}
		return qcow2.NoEncryption, nil
	}
	kind, err := choose(s, "encrypt.format", "format", map[string]qcow2.Encryption{"aes": qcow2.AES, "luks": qcow2.LUKS})
	if kind == qcow2.AES {
		err = s.without(luksOptions("encrypt."))
	}
	return kind, err
}

// without refuses options that an encryption does not have.
func (s *Settings) without(options []Option) error {
	for _, o := range options {
		if s.Has(o.Name) {
			return block.Invalidf("Parameter '%s' is unexpected", o.Name)
		}
	}
	return nil
}

// iterTime returns how long a passphrase is to take. 0, unlike nothing, is as
// short as it may be.
func (s *Settings) iterTime(prefix string) time.Duration {
	if s.Has(prefix+"iter-time") && s.Number(prefix+"iter-time") == 0 {
		return 1
	}
	return time.Duration(s.Number(prefix+"iter-time")) * time.Millisecond
}

// luks returns the settings for a LUKS header.
func (s *Settings) luks(prefix string) qcow2.LUKSOptions {
	return qcow2.LUKSOptions{
		Cipher: s.Text(prefix + "cipher-alg"), Mode: s.Text(prefix + "cipher-mode"), IVGen: s.Text(prefix + "ivgen-alg"),
		IVHash: s.Text(prefix + "ivgen-hash-alg"), Hash: s.Text(prefix + "hash-alg"),
		IterTime: s.iterTime(prefix),
	}
}

var luksFormat = Format{
	Name:    "luks",
	Probe:   probeLUKS,
	Open:    openLUKS,
	Inspect: luks.Inspect,
	Create:  createLUKS,
	Measure: measureLUKS,
	Amend:   amendLUKS,
	Amends:  keyOptions(""),
	Options: append(append([]Option{
		{Name: "size", Type: Size, Help: "Virtual disk size"},
		{Name: "key-secret", Help: "ID of the secret that provides the keyslot passphrase"},
	}, luksOptions("")...), noCOW, filePreallocation, extentSizeHint),
}

func probeLUKS(head []byte) int {
	if luks.Probe(head) {
		return 100
	}
	return 0
}

func openLUKS(f block.File, o FormatOptions) (*Image, error) {
	return luks.Open(f, &luks.OpenOptions{Path: o.Path, Writable: o.Writable, Passphrase: o.Passphrase, NoIO: o.NoIO, NoSync: o.NoSync})
}

func createLUKS(f block.File, s *Settings, o FormatOptions) error {
	c, err := s.luksDisk()
	if err != nil {
		return err
	}
	c.Passphrase, c.NoSync = o.Passphrase, o.NoSync
	return luks.Create(f, c)
}

func measureLUKS(s *Settings, _ *Content) (block.Measurement, error) {
	c, err := s.luksDisk()
	if err != nil {
		return block.Measurement{}, err
	}
	return luks.Measure(c)
}

// luksDisk returns the settings for a disk of that format.
func (s *Settings) luksDisk() (*luks.CreateOptions, error) {
	mode, err := s.filePreallocation()
	l := s.luks("")
	return &luks.CreateOptions{
		Size: s.Number("size"), Preallocation: mode,
		Cipher: l.Cipher, Mode: l.Mode, IVGen: l.IVGen, IVHash: l.IVHash, Hash: l.Hash, IterTime: l.IterTime,
	}, err
}

func amendLUKS(_ context.Context, img *Image, s *Settings, c AmendControl) error {
	k, err := s.keyChange("", c)
	if err != nil {
		return err
	}
	defer wipe(k)
	changer, ok := block.As[block.KeyChanger](img)
	if !ok {
		return block.ErrUnsupported
	}
	return changer.ChangeKeys(*k)
}
