package diskimg

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qemu"
)

func TestProbeForeign(t *testing.T) {
	for head, want := range map[string]string{
		"KDMV": "vmdk", "COWD\x01": "vmdk", "VMDK": "", "KDM": "",
		strings.Repeat("x", 64) + "\x7f\x10\xda\xbe": "vdi", strings.Repeat("x", 63) + "\x7f\x10\xda\xbe": "",
		"vhdxfile": "vhdx", "vhdxfil": "", "QFI\xfb\x00\x00\x00\x01": "qcow", "QFI\xfb\x00\x00\x00\x00": "",
		"WithoutFreeSpace\x02\x00\x00\x00": "parallels", "WithoutFreeSpace\x01\x00\x00\x00": "", "WithouFreSpacExt\x02\x00\x00\x00": "parallels",
		"Bochs Virtual HD Image\x00": "bochs", "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0": "cloop", "#!/bin/sh\n": "",
		"# Disk DescriptorFile\nversion=1\n": "vmdk", "# Disk DescriptorFile\r\nversion=3\r\n": "vmdk", "version=2\n": "vmdk", "#a\n  \n#b\nversion=1\nx": "vmdk",
		"# Disk DescriptorFile\nversion=4\n": "", "#a\n\nversion=1\n": "", "#a\nversion=1": "", "#a\n version=1\n": "", "#a\nx\nversion=1\n": "", "": "", "#": "", "\n": "",
	} {
		if got := probeForeign([]byte(head)); got != want {
			t.Errorf("%q: %q, want %q", head, got, want)
		}
	}
}

// What QEMU makes in formats that are not known here is not taken for raw, and
// a disk that was guessed to be raw does not become such an image.
func TestForeignImages(t *testing.T) {
	qemu.Need(t, "qemu-img")
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	makeImage(t, disk, CreateOptions{}, 0)
	for _, args := range []string{"vmdk", "vmdk -o subformat=monolithicFlat", "vmdk -o subformat=streamOptimized", "vdi", "vhdx", "qcow", "parallels"} {
		format, _, _ := strings.Cut(args, " ")
		path := filepath.Join(dir, format)
		qemu.Img(t, append(strings.Fields("create -q -f "+args), path, "1M")...)
		if _, err := Open(path, nil); !errors.Is(err, block.ErrUnsupported) || !strings.Contains(err.Error(), "'"+format+"' is not supported") {
			t.Errorf("%s: opening: %v", args, err)
		}
		if _, err := Inspect(path, nil); !errors.Is(err, block.ErrUnsupported) {
			t.Errorf("%s: inspecting: %v", args, err)
		}
		if img, err := Open(path, &OpenOptions{Format: "raw"}); err != nil {
			t.Errorf("%s, named raw: %v", args, err)
		} else {
			img.Close()
		}
		head, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		img, err := Open(disk, &OpenOptions{Writable: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := img.WriteAt(head[:min(len(head), 512)], 0); !errors.Is(err, block.ErrRefused) {
			t.Errorf("%s: written to a disk guessed to be raw: %v", args, err)
		}
		img.Close()
	}
}
