package block

import "time"

// KeyChange is a change of the key slots of an encrypted image. A slot holds the
// key of the disk, encrypted with a passphrase. Passphrases are cleared by who
// made them, not by the image.
type KeyChange struct {
	// Erase makes slots unusable; otherwise one is made for a new passphrase.
	Erase bool
	// Slot is which one; nil is the first that is free, or with Erase all that
	// Old opens.
	Slot *int
	// New is the passphrase of a new slot. Not with Erase.
	New []byte
	// IterTime is how long it is to take to try a passphrase, on one processor
	// of this machine; 0 is two seconds. Not with Erase.
	IterTime time.Duration
	// Old is a passphrase whose slots are erased. Only with Erase.
	Old []byte
	// Force overwrites a slot that is in use, and erases the last one, after
	// which nobody can read the disk again.
	Force bool
}

// KeyChanger changes which passphrases open an encrypted image.
type KeyChanger interface {
	// ChangeKeys makes or erases key slots; what lies on the disk stays as it
	// is. To make one, the image's own passphrase is asked for once more. A
	// power cut leaves the slots as they were or as they will be, and never
	// none that opens.
	ChangeKeys(c KeyChange) error
}
