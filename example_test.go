package diskimg_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/job"
)

// An image is made, written and mapped.
func Example() {
	path, remove := scratch("disk.qcow2")
	defer remove()

	err := diskimg.Create(path, &diskimg.CreateOptions{Format: "qcow2", Size: 1 << 30})
	if err != nil {
		log.Fatal(err)
	}
	img, err := diskimg.Open(path, &diskimg.OpenOptions{Format: "qcow2", Writable: true})
	if err != nil {
		log.Fatal(err)
	}
	defer img.Close()

	// An image is an io.ReaderAt and an io.WriterAt over the guest disk.
	if _, err := img.WriteAt([]byte("hello"), 512<<20); err != nil {
		log.Fatal(err)
	}
	if err := img.Flush(); err != nil { // now it would survive a power cut
		log.Fatal(err)
	}
	for e, err := range img.Extents(0, img.Size()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%10d bytes at %10d: %v\n", e.Length, e.Start, e.Kind)
	}
	// Output:
	//  536870912 bytes at          0: zero
	//      65536 bytes at  536870912: data
	//  536805376 bytes at  536936448: zero
}

// An image is encrypted. Its passphrase is asked for by a function, which gives
// away a copy that is cleared after use.
func Example_encrypted() {
	path, remove := scratch("secret.qcow2")
	defer remove()
	ask := diskimg.OnePassphrase([]byte("correct horse"))

	err := diskimg.Create(path, &diskimg.CreateOptions{
		Format: "qcow2", Size: 1 << 30, PlanOptions: diskimg.PlanOptions{Passphrase: ask},
		Options: map[string]string{"encrypt.format": "luks", "encrypt.iter-time": "10"},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = diskimg.Open(path, &diskimg.OpenOptions{Format: "qcow2"})
	fmt.Println(errors.Is(err, block.ErrPassphrase))

	img, err := diskimg.Open(path, &diskimg.OpenOptions{Format: "qcow2", Passphrase: ask})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(img.Size(), img.Close())
	// Output:
	// true
	// 1073741824 <nil>
}

// A disk is copied into a compressed image, which appears under its name when
// it is complete.
func Example_convert() {
	from, remove := scratch("disk.raw")
	defer remove()
	to := from + ".qcow2"
	if err := os.WriteFile(from, []byte(strings.Repeat("disk", 1<<20)), 0o666); err != nil {
		log.Fatal(err)
	}

	src, err := diskimg.Open(from, &diskimg.OpenOptions{Format: "raw"})
	if err != nil {
		log.Fatal(err)
	}
	defer src.Close()
	qcow2, err := diskimg.FindFormat("qcow2")
	if err != nil {
		log.Fatal(err)
	}
	settings := qcow2.Settings()
	if err := settings.Set("size", fmt.Sprint(src.Size())); err != nil {
		log.Fatal(err)
	}
	if err := settings.Set("compression_type", "zstd"); err != nil {
		log.Fatal(err)
	}
	plan, err := settings.Plan(to, nil)
	if err != nil {
		log.Fatal(err)
	}
	out, err := plan.Begin()
	if err != nil {
		log.Fatal(err)
	}
	defer out.Discard() // does nothing after Commit
	err = job.Convert(context.Background(), out.Image, []*block.Image{src}, &job.ConvertOptions{
		TargetIsZero: true,
		Compress:     true,
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := out.Commit(); err != nil {
		log.Fatal(err)
	}

	info, err := diskimg.Inspect(to, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Format, info.VirtualSize, info.DiskSize < 1<<20)
	// Output: qcow2 4194304 true
}

// What only some formats can is asked for, once. What may take long has a context
// and tells how far it is.
func Example_snapshots() {
	path, remove := scratch("disk.qcow2")
	defer remove()
	if err := diskimg.Create(path, &diskimg.CreateOptions{Format: "qcow2", Size: 1 << 30}); err != nil {
		log.Fatal(err)
	}
	img, err := diskimg.Open(path, &diskimg.OpenOptions{Format: "qcow2", Writable: true})
	if err != nil {
		log.Fatal(err)
	}
	defer img.Close()
	snapshots, ok := block.As[block.Snapshotter](img)
	if !ok {
		log.Fatal("no internal snapshots in this format")
	}
	resizer, ok := block.As[block.Resizer](img)
	if !ok {
		log.Fatal("images of this format can't be resized")
	}

	ctx := context.Background()
	s, err := snapshots.CreateSnapshot(ctx, block.Snapshot{Name: "before"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := resizer.Resize(ctx, 2<<30, block.ResizeOptions{}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.ID, s.Name, img.Size()>>30, "GiB")
	if err := snapshots.ApplySnapshot(ctx, "before", nil); err != nil {
		log.Fatal(err)
	}
	fmt.Println(img.Size()>>30, "GiB")
	// Output:
	// 1 before 2 GiB
	// 1 GiB
}

// An image from a stranger names a file of this machine as its backing file.
// Inspect tells so without touching it, and Open refuses it.
func ExampleInspect() {
	path, remove := scratch("disk.qcow2")
	defer remove()
	err := diskimg.Create(path, &diskimg.CreateOptions{
		Format: "qcow2", Size: 1 << 20, BackingFile: "/etc/passwd", BackingFormat: "raw",
		PlanOptions: diskimg.PlanOptions{Unchecked: true},
	})
	if err != nil {
		log.Fatal(err)
	}

	info, err := diskimg.Inspect(path, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Format, info.VirtualSize, info.BackingName)

	_, err = diskimg.Open(path, nil)
	fmt.Println(errors.Is(err, block.ErrRefused))
	// Output:
	// qcow2 1048576 /etc/passwd
	// true
}

// scratch returns the path for a file in a folder of its own.
func scratch(name string) (path string, remove func()) {
	dir, err := os.MkdirTemp("", "diskimg-")
	if err != nil {
		log.Fatal(err)
	}
	return filepath.Join(dir, name), func() { os.RemoveAll(dir) }
}
