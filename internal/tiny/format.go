package tiny

import (
	"errors"
	"os"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
)

// Format is the format as a test suite wants it, with local files, the cluster
// size of the option cluster_size and a bug; "" for none.
func Format(bug Bug) blocktest.Format {
	return blocktest.Format{
		Name:    "tiny",
		Backing: true,
		Create:  create,
		Open: func(path string, o blocktest.OpenOptions) (*block.Image, error) {
			return open(path, o, bug)
		},
	}
}

func create(path string, o blocktest.CreateOptions) (err error) {
	f, err := openFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, o.Wrap)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	c := CreateOptions{Size: o.Size, Backing: o.Backing}
	switch size := o.Options["cluster_size"]; size {
	case "512":
		c.ClusterSize = 512
	case "4k", "":
	case "64k":
		c.ClusterSize = 64 << 10
	default:
		return block.Invalidf("cluster_size=%s: want 512, 4k or 64k", size)
	}
	return Create(f, c)
}

func open(path string, o blocktest.OpenOptions, bug Bug) (*block.Image, error) {
	flag := os.O_RDONLY
	if o.Writable {
		flag = os.O_RDWR
	}
	f, err := openFile(path, flag, o.Wrap)
	if err != nil {
		return nil, err
	}
	img, err := Open(f, Options{Path: path, Writable: o.Writable, Policy: allow{}, Bug: bug})
	if err != nil {
		f.Close()
	}
	return img, err
}

func openFile(path string, flag int, wrap func(block.File) block.File) (block.File, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	if wrap == nil {
		return file{f}, nil
	}
	return wrap(file{f}), nil
}

// file is a local file, no more.
type file struct{ *os.File }

func (f file) Size() (int64, error) {
	i, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return i.Size(), nil
}

// allow opens every backing image, as tiny.
type allow struct{ block.Deny }

func (allow) OpenImage(ref block.Ref) (*block.Image, error) {
	return open(ref.Name, blocktest.OpenOptions{}, "")
}
