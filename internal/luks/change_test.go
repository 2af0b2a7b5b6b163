package luks

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/crashfile"
)

func knows(p string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(p), nil }
}

func at(slot int) *int { return &slot }

// opens returns the slots that each passphrase opens, by what is in the file.
func opens(t *testing.T, f Area, area int64, passphrases ...string) (slots [][]int) {
	t.Helper()
	h := reread(t, f, area)
	for _, p := range passphrases {
		list, err := h.matching(f, []byte(p))
		if err != nil {
			t.Fatal(err)
		}
		slots = append(slots, list)
	}
	return slots
}

// A life of key slots: made, used, overwritten, erased. The master key stays.
func TestChange(t *testing.T) {
	f, made := create(t, &CreateOptions{IterTime: quick})
	if h := reread(t, f, made.Payload); *h != *made || h.CipherName() != "aes-256" || h.ActiveSlots() != 1 {
		t.Fatalf("read %+v, made %+v", h, made)
	}
	key, _, err := made.unlock(f, []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what          string
		current       string
		change        block.KeyChange
		first, second []int
	}{
		{"the first free slot", "first", block.KeyChange{New: []byte("second"), IterTime: quick}, []int{0}, []int{1}},
		{"a slot of choice", "second", block.KeyChange{Slot: at(7), New: []byte("first"), IterTime: quick}, []int{0, 7}, []int{1}},
		{"slot 6, which crosses a sector's end", "second", block.KeyChange{Slot: at(6), New: []byte("second"), IterTime: quick}, []int{0, 7}, []int{1, 6}},
		{"erased by number", "", block.KeyChange{Erase: true, Slot: at(6)}, []int{0, 7}, []int{1}},
		{"erased by number and passphrase", "", block.KeyChange{Erase: true, Slot: at(7), Old: []byte("first")}, []int{0}, []int{1}},
		{"erased by passphrase", "", block.KeyChange{Erase: true, Old: []byte("first")}, nil, []int{1}},
		{"the only one overwritten", "second", block.KeyChange{Slot: at(1), New: []byte("first"), IterTime: quick, Force: true}, []int{1}, nil},
		{"one more", "first", block.KeyChange{Slot: at(0), New: []byte("second"), IterTime: quick, Force: true}, []int{1}, []int{0}},
		{"one of two overwritten", "first", block.KeyChange{Slot: at(0), New: []byte("first"), IterTime: quick, Force: true}, []int{0, 1}, nil},
		{"all erased by force", "", block.KeyChange{Erase: true, Old: []byte("first"), Force: true}, nil, nil},
	} {
		h := reread(t, f, made.Payload)
		if err := h.Change(f, step.change, knows(step.current)); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if got := opens(t, f, made.Payload, "first", "second"); !slices.Equal(got[0], step.first) || !slices.Equal(got[1], step.second) {
			t.Errorf("%s: the passphrases open %d", step.what, got)
		}
		if again := reread(t, f, made.Payload); *again != *h {
			t.Errorf("%s: in memory %+v, in the file %+v", step.what, h, again)
		}
		for _, p := range []string{"first", "second"} {
			if again, _, err := h.unlock(f, []byte(p)); err == nil && !bytes.Equal(again, key) {
				t.Errorf("%s: another master key", step.what)
			}
		}
	}
}

// What is refused changes nothing.
func TestChangeRefused(t *testing.T) {
	f, h := create(t, &CreateOptions{IterTime: quick})
	before := make([]byte, h.Payload)
	if _, err := f.ReadAt(before, 0); err != nil {
		t.Fatal(err)
	}
	fresh := []byte("new")
	for want, c := range map[string]block.KeyChange{
		"Invalid keyslot 8 specified, must be between 0 and 7":                                                                                                    {Slot: at(8), New: fresh},
		"Invalid keyslot 4294967295 specified, must be between 0 and 7":                                                                                           {Erase: true, Slot: at(-1)},
		"'new-secret' is required to activate a keyslot":                                                                                                          {},
		"'old-secret' must not be given when activating keyslots":                                                                                                 {New: fresh, Old: fresh},
		"Parameter 'iter-time' must not be negative":                                                                                                              {New: fresh, IterTime: -1},
		"Refusing to overwrite active keyslot 0 - please erase it first":                                                                                          {Slot: at(0), New: fresh},
		"'new-secret' must not be given when erasing keyslots":                                                                                                    {Erase: true, New: fresh},
		"'iter-time' must not be given when erasing keyslots":                                                                                                     {Erase: true, Slot: at(0), IterTime: 1},
		"Given keyslot 3 is already erased (inactive) ":                                                                                                           {Erase: true, Slot: at(3)},
		"Given keyslot 3 doesn't contain the given old password for erase operation":                                                                              {Erase: true, Slot: at(3), Old: []byte("first")},
		"Given keyslot 0 doesn't contain the given old password for erase operation":                                                                              {Erase: true, Slot: at(0), Old: fresh},
		"No keyslots match given (old) password for erase operation":                                                                                              {Erase: true, Old: fresh},
		"To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given":                                            {Erase: true},
		"Attempt to erase the only active keyslot 0 which will erase all the data in the image irreversibly - refusing operation":                                 {Erase: true, Slot: at(0)},
		"All the active keyslots match the (old) password that was given and erasing them will erase all the data in the image irreversibly - refusing operation": {Erase: true, Old: []byte("first")},
	} {
		if err := h.Change(f, c, knows("first")); err == nil || err.Error() != want {
			t.Errorf("%+v: %v, want %s", c, err, want)
		}
	}
	if err := h.Change(f, block.KeyChange{New: fresh}, knows("wrong")); !errors.Is(err, block.ErrPassphrase) {
		t.Error("another passphrase:", err)
	}
	after := make([]byte, h.Payload)
	if _, err := f.ReadAt(after, 0); err != nil || !bytes.Equal(before, after) {
		t.Error("something was written", err)
	}
	full := *h
	for i := range full.Slots {
		full.Slots[i].Active = true
	}
	if err := full.Change(f, block.KeyChange{New: fresh}, knows("first")); err == nil || err.Error() != "Can't add a keyslot - all keyslots are in use" {
		t.Error("a ninth slot:", err)
	}
}

// The power fails at every instant of a change of slots: the disk can be opened
// still, and what is not part of the change is as it was.
func TestChangeCrash(t *testing.T) {
	for what, c := range map[string]block.KeyChange{
		"added": {Slot: at(6), New: []byte("second"), IterTime: quick}, "overwritten": {Slot: at(0), New: []byte("second"), IterTime: quick, Force: true},
		"erased": {Erase: true, Old: []byte("other")},
	} {
		g := crashfile.NewGroup()
		f := g.New()
		o := CreateOptions{Cipher: "aes-128", Mode: "cbc", IterTime: quick}
		h, _, err := o.Create(f, []byte("first"))
		if err != nil {
			t.Fatal(err)
		}
		if c.Erase {
			err = h.Change(f, block.KeyChange{Slot: at(6), New: []byte("other"), IterTime: quick}, knows("first"))
		}
		if err := errors.Join(err, f.Truncate(h.Payload)); err != nil {
			t.Fatal(err)
		}
		g.Checkpoint()
		if err := h.Change(f, c, knows("first")); err != nil {
			t.Fatal(err)
		}
		states := 0
		for s := range g.States(crashfile.Options{Seed: 1}) {
			got := opens(t, s.Files[0], h.Payload, "first", "second")
			if len(got[0])+len(got[1]) == 0 || len(got[0]) == 0 && what != "overwritten" {
				t.Errorf("%s: the passphrases open %d\n%v", what, got, s)
			}
			states++
		}
		if states < 10 {
			t.Errorf("%s: %d states only", what, states)
		}
	}
}
