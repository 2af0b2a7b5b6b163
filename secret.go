package diskimg

// This file is about passphrases of encrypted images.

import "slices"

// KeyRequest says what image a passphrase is for.
type KeyRequest struct {
	Path   string
	Format string // qcow2, luks
	// Secret is what the target, or the name by which another image refers to
	// this one, calls the passphrase: the value of encrypt.key-secret, empty if
	// it has none. In the name of a backing file it is input from a stranger.
	Secret string
}

// Passphrase returns the passphrase of an image. It is asked once for each
// encrypted image of a chain, and once more for each key slot that is added.
// What it returns is cleared after use: give away a copy.
type Passphrase func(KeyRequest) ([]byte, error)

// OnePassphrase returns copies of p, whatever image it is asked for.
func OnePassphrase(p []byte) Passphrase {
	return func(KeyRequest) ([]byte, error) { return slices.Clone(p), nil }
}

// of returns the question for one image, nil if there is nobody to ask.
func (p Passphrase) of(path, format, secret string) func() ([]byte, error) {
	if p == nil {
		return nil
	}
	return func() ([]byte, error) { return p(KeyRequest{Path: path, Format: format, Secret: secret}) }
}
