// Package formats gives the formats of the table diskimg.Formats to the test
// suites, in local files. A format that is added to the table can be tested
// with all of them at once. Locks are not taken: a test has one image open in
// one way at a time.
package formats

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/qemu"
	"github.com/diskimg/diskimg/storage"
)

// Get returns the format of that name. All images that it makes have the
// options, in qemu-img's names; {path} in a value is the path of the image.
func Get(t testing.TB, name string, options map[string]string) blocktest.Format {
	t.Helper()
	row, err := diskimg.FindFormat(name)
	if err != nil {
		t.Fatal(err)
	}
	f := format{row, options}
	return blocktest.Format{
		Name:    name,
		Backing: slices.ContainsFunc(row.Options, func(o diskimg.Option) bool { return o.Name == "backing_file" }),
		Create:  f.create,
		Open:    f.open,
	}
}

type format struct {
	*diskimg.Format
	options map[string]string
}

func (f format) create(path string, o blocktest.CreateOptions) (err error) {
	s, err := f.settings(path, o)
	if err != nil {
		return err
	}
	file, err := create(path, o.Wrap)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	to := diskimg.FormatOptions{Path: path, Passphrase: passphrase}
	if s.Has("data_file") {
		if to.Data, err = create(s.Text("data_file"), o.Wrap); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, to.Data.Close()) }()
	}
	return f.Create(file, s, to)
}

// settings turns options into those of the format.
func (f format) settings(path string, o blocktest.CreateOptions) (*diskimg.Settings, error) {
	all := map[string]string{"size": strconv.FormatInt(o.Size, 10)}
	if o.Backing != "" {
		all["backing_file"], all["backing_fmt"] = o.Backing, f.Name
	}
	if o.BackingFormat != "" {
		all["backing_fmt"] = o.BackingFormat
	}
	maps.Copy(all, f.options)
	maps.Copy(all, o.Options)
	s := f.Settings()
	for name, value := range blocktest.ExpandOptions(all, path) {
		if err := s.Set(name, value); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func create(path string, wrap func(block.File) block.File) (block.File, error) {
	f, err := storage.OpenFile(path, &storage.FileOptions{Create: true, Exclusive: true})
	if err != nil {
		return nil, err
	}
	return wrapped(f, wrap), nil
}

func wrapped(f block.File, wrap func(block.File) block.File) block.File {
	if wrap == nil {
		return f
	}
	return wrap(f)
}

func (f format) open(path string, o blocktest.OpenOptions) (*block.Image, error) {
	file, err := storage.OpenFile(path, &storage.FileOptions{Writable: o.Writable})
	if err != nil {
		return nil, err
	}
	img, err := f.Open(wrapped(file, o.Wrap), diskimg.FormatOptions{
		Path: path, Writable: o.Writable, Policy: policy{diskimg.Permissive{Passphrase: diskimg.OnePassphrase([]byte(qemu.Passphrase))}, o.Wrap}, Passphrase: passphrase,
	})
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return img, nil
}

// passphrase is that of all encrypted images of tests.
func passphrase() ([]byte, error) { return []byte(qemu.Passphrase), nil }

// policy opens all and wraps data files, which are part of the image.
type policy struct {
	diskimg.Permissive
	wrap func(block.File) block.File
}

// OpenFile opens and wraps a data file.
func (p policy) OpenFile(ref block.Ref) (block.File, error) {
	f, err := p.Permissive.OpenFile(ref)
	if err != nil {
		return nil, err
	}
	return wrapped(f, p.wrap), nil
}
