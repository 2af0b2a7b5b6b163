// Command listfs lists the files of the file system inside a disk image of any
// format that diskimg reads, and prints one of them on request. The file system
// is read by github.com/diskfs/go-diskfs, which knows nothing of images: it is
// handed an io.ReaderAt.
//
//	listfs disk.qcow2
//	listfs disk.qcow2 etc/hostname
package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskimg/diskimg"
)

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: listfs IMAGE [FILE]")
		os.Exit(2)
	}
	name := ""
	if len(os.Args) == 3 {
		name = os.Args[2]
	}
	if err := run(os.Stdout, os.Args[1], name); err != nil {
		fmt.Fprintln(os.Stderr, "listfs:", err)
		os.Exit(1)
	}
}

// run lists the file system in the image at path, or prints the file called
// name if there is a name. The image is opened strictly: it may refer to files
// beside it and to nothing else, whoever made it.
func run(out io.Writer, path, name string) error {
	img, err := diskimg.Open(path, nil)
	if err != nil {
		return err
	}
	defer img.Close()
	fsys, err := fileSystem(img)
	if err != nil {
		return err
	}
	if name == "" {
		return list(out, fsys)
	}
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(out, f)
	return err
}

// fileSystem finds the file system on the disk: on the whole of it or, if it
// has a partition table, on the first partition.
func fileSystem(img *diskimg.Image) (fs.FS, error) {
	disk, err := diskfs.OpenBackend(file.New(device{io.NewSectionReader(img, 0, img.Size()), img}, true),
		diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		return nil, err
	}
	if fsys, err := disk.GetFilesystem(0); err == nil {
		return fsys, nil
	}
	return disk.GetFilesystem(1)
}

func list(out io.Writer, fsys fs.FS) error {
	return fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%s %12d %s\n", info.Mode(), info.Size(), path)
		return err
	})
}

// device is the guest disk in the shape of a file, which go-diskfs asks for.
type device struct {
	*io.SectionReader
	img *diskimg.Image
}

func (d device) Stat() (fs.FileInfo, error) { return d, nil }
func (d device) Close() error               { return nil }
func (d device) Name() string               { return d.img.Path() }
func (d device) Mode() fs.FileMode          { return 0o444 }
func (d device) ModTime() time.Time         { return time.Time{} }
func (d device) IsDir() bool                { return false }
func (d device) Sys() any                   { return nil }
