package diskimg

// This file lays memory over an image, so that it can be written without being
// changed.

import (
	"errors"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
	"github.com/diskimg/diskimg/storage"
)

// temporary returns a writable overlay of img in memory. It owns img.
func temporary(img *Image) (*Image, error) {
	f := storage.NewMemory()
	o := &qcow2.CreateOptions{Size: img.Size(), BackingFile: "below", BackingFormat: img.Format()}
	if err := qcow2.Create(f, o); err != nil {
		return nil, errors.Join(err, img.Close())
	}
	over, err := qcow2.Open(f, &qcow2.OpenOptions{Path: img.Path(), Writable: true, NoSync: true, Policy: fixed{img: img}})
	if err != nil {
		return nil, errors.Join(err, img.Close())
	}
	return over, nil
}

// fixed is a policy that knows one image only, which is open already.
type fixed struct {
	block.Deny
	img *Image
}

// OpenImage implements block.Policy.
func (p fixed) OpenImage(block.Ref) (*Image, error) { return p.img, nil }
