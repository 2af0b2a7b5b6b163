// Package drill does random operations on an image, which is closed and opened in
// between, and notes what has become of each. Crash and fault tests of the formats
// do so and hold what is left against what may be. Used by tests only.
package drill

import (
	"errors"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/stamp"
)

// Drill is a sequence of operations on an image. Its methods must not be called
// concurrently.
type Drill struct {
	stamp.History
	// Open opens the image for writing, Operation does something to it.
	Open      func() (*block.Image, error)
	Operation func() error
	// Img is the image; nil if it could not be opened again.
	Img *block.Image
}

// Step does one operation. After an error nobody knows what it has changed.
func (d *Drill) Step() error {
	from := len(d.Changes)
	err := d.Operation()
	if err != nil {
		d.Doubt(from)
	}
	return err
}

// Play opens the image, does n operations and closes it. It stops at the first
// error.
func (d *Drill) Play(n int) (err error) {
	if d.Img, err = d.Open(); err != nil {
		return err
	}
	for range n {
		if err := d.Step(); err != nil {
			return err
		}
	}
	return d.close()
}

// Persist is Play that goes on after errors as long as there is an image. It
// returns all of them.
func (d *Drill) Persist(n int) (errs error) {
	if d.Img, errs = d.Open(); errs != nil {
		return errs
	}
	for range n {
		err := d.Step()
		if errs = errors.Join(errs, err); d.Img == nil || errors.Is(err, block.ErrClosed) {
			return errs
		}
	}
	return errors.Join(errs, d.close())
}

// Reopen closes the image, with which all is safe, and opens it again.
func (d *Drill) Reopen() (err error) {
	if err := d.close(); err != nil {
		return err
	}
	d.Img, err = d.Open()
	return err
}

func (d *Drill) close() error {
	err := d.Img.Close()
	if err == nil {
		d.Note(true)
	}
	return err
}

// TakeTurns plays on two handles of one image, as two hosts do: each invalidates
// what it has read, has it checked, and flushes what it has written.
func (d *Drill) TakeTurns(check func(*block.Image) error) error {
	var hosts [2]*block.Image
	var err error
	for i := range hosts {
		if hosts[i], err = d.Open(); err != nil {
			return err
		}
	}
	for turn := range 10 {
		if hosts[turn%2], err = d.turn(hosts[turn%2], check); err != nil {
			return err
		}
	}
	// The last turn was that of the second.
	return errors.Join(hosts[1].Close(), hosts[0].Invalidate(), hosts[0].Close())
}

// turn is the turn of a host. It returns its handle, which may be another one now.
func (d *Drill) turn(host *block.Image, check func(*block.Image) error) (*block.Image, error) {
	d.Img = host
	err := host.Invalidate()
	if err == nil {
		err = check(host)
	}
	for i := 0; i < 4 && err == nil; i++ {
		err = d.Step()
	}
	if err == nil {
		err = d.Img.Flush()
	}
	return d.Img, err
}
