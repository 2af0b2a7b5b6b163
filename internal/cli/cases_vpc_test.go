package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"strings"
	"testing"
)

// vpcLines are about VHD. qemu-img knows no other disks of that kind than fixed
// and dynamic ones.
var vpcLines = []string{
	"create -f vpc new 1M", "create -f vpc new 0", "create -f vpc new 1", "create -f vpc new 10G", "create -f vpc new 128G", "create -f vpc new 2040G", "create -f vpc new 2041G",
	"create -f vpc -o force_size=on new 1M", "create -f vpc -o force_size new 1000", "create -f vpc -o force_size=foo new 1M", "create -f vpc -o subformat=fixed new 3M",
	"create -f vpc -o subformat=fixed,force_size=on new 3M", "create -f vpc -o subformat=dynamic new 3M", "create -f vpc -o subformat=foo new 3M", "create -f vpc -o subformat= new 3M",
	"create -f vpc -o preallocation=full,subformat=fixed new 1M", "create -f vpc -o preallocation=falloc new 1M", "create -f vpc -o preallocation=metadata new 1M", "create -f vpc -o preallocation=foo new 1M",
	"create -f vpc -b vhd -F vpc new", "create -f vpc -F vpc new 1M", "create -f vpc -o backing_file=vhd new", "create -f vpc -o block_size=1M new 1M", "create -f vpc -o help", "create -f vpc -o help new", "create -f vpc new",
	"info vhd", "info -f vpc vhd", "info --output=json vhd", "info vhdfixed", "info -f vpc vhdfixed", "info --output=json -f vpc vhdfixed", "info -f vpc raw", "info -f vpc empty", "info -f vpc q", "info vhdbadsum",
	"map vhd", "map --output=json vhd", "map -f vpc --output=json vhdfixed", "map -f vpc vhdfixed",
	"check vhd", "check -f vpc vhdfixed", "check --output=json vhd", "check vhdbadsum",
	"compare vhd raw", "compare vhd q", "compare -s vhd raw", "compare -F vpc q vhdfixed", "compare vhd vhd",
	"convert -O vpc raw new", "convert -O vpc -o subformat=fixed raw new", "convert -O vpc -o subformat=fixed,force_size=on raw new", "convert -O vpc q new", "convert -O vpc -o force_size q new", "convert -c -O vpc q new",
	"convert -f vpc -O raw vhd new", "convert -f vpc -O raw vhdfixed new", "convert -f vpc -O qcow2 vhd new", "convert -O raw vhd new", "convert -O vpc vhd new", "convert -O vpc -B vhd raw new", "convert -O vpc -p raw new", "convert -n -O vpc raw vhdsame", "convert -O vpc -S 0 raw new",
	"resize vhd 20M", "resize -f vpc vhdfixed 20M", "resize -f vpc --shrink vhdfixed 1M", "commit vhd", "commit -f vpc vhdfixed", "rebase -b raw -F raw vhd", "rebase -u -b raw -F raw vhd", "rebase -u -b '' vhd", "rebase -b '' vhd",
	"measure -O vpc --size 1M", "measure vhd", "measure -O qcow2 vhd", "dd if=vhd of=new", "dd -O vpc if=raw of=new", "snapshot -l vhd", "snapshot -c x vhd", "snapshot -a x vhd", "snapshot -d x vhd", "amend -o size=1M vhd", "amend -o foo=1M vhd", "bench -c 1 -q vhd", "bitmap --add vhd b",
}

func TestVPC(t *testing.T) {
	allowed := []difference{
		{lines: ".*subformat=fixed.*", why: "probed, fixed disks are raw ones with the time and a random UUID in the last sector", images: true},
		{lines: "resize .*", why: "VHDs can be resized", stdout: "Image resized.\\n", stderr: nothing, code: success, images: true},
		{lines: "rebase (-u )?-b '' vhd", why: "a disk without a parent stays one", stderr: nothing, code: success},
		{lines: "rebase .*-b raw .*", why: "why it can't be is told", stderr: "qemu-img: Could not change the backing file to 'raw': The parent of a VHD has to be a VHD, .*"},
		{lines: "measure -O qcow2 vhd", why: "holes in a block are zeros", stdout: "required size: 720896\\nfully allocated size: 5636096\\n"},
	}
	differential(t, sample(vpcLines, allowed), allowed...)
}

// What Azure takes is a fixed disk of whole MiB whose footer says so.
func TestAzure(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		args   string
		size   int64
		stderr string
	}{
		{args: "create --for azure new 3000001", size: 3 << 20},
		{args: "create -f vpc -o azure new 1M", size: 1 << 20},
		{args: "create --for azure -o creator=abcd new 1M", stderr: "diskimg: new: a disk of 1048576 bytes by creator \"abcd\" would be taken for one of 1044480 bytes\n"},
		{args: "convert --for azure raw new", size: 2 << 20},
		{args: "convert -O vpc -o azure raw new", size: 2 << 20},
		{args: "convert --for azure -O raw raw new", stderr: "diskimg: --for azure takes the format vpc, not raw\n"},
		{args: "convert --for azure -n raw new", stderr: "diskimg: --for has no effect when skipping image creation\n"},
		{args: "convert --for nobody raw new", stderr: "diskimg: --for nobody: not known, only azure is\n"},
		{args: "create -f vpc -o azure,subformat=dynamic new 1M", stderr: "diskimg: new: Azure takes fixed disks only\n"},
		{args: "create -f vpc -o azure,force_size=off new 1M", stderr: "diskimg: new: Azure takes disks of exact size only, so force_size can't be off\n"},
		{args: "create -f vpc -o azure,block_size=1M new 1M", stderr: "diskimg: new: fixed disks, which Azure takes, have no blocks\n"},
		{args: "create -f vpc -o azure -b raw -F vpc -u new 1M", stderr: "diskimg: new: Azure takes fixed disks only\n"},
	} {
		if err := os.WriteFile("raw", bytes.Repeat([]byte{7}, 1<<20+1000), 0o666); err != nil {
			t.Fatal(err)
		}
		os.Remove("new")
		r := run(t, append([]string{"diskimg"}, strings.Fields(c.args)...)...)
		info, err := os.Stat("new")
		if c.stderr != "" {
			if !strings.HasPrefix(r.stderr, c.stderr) || r.code != 1 || err == nil {
				t.Errorf("%s: %+v, %v", c.args, r, err)
			}
			continue
		}
		if r.code != 0 || err != nil || info.Size() != c.size+512 {
			t.Errorf("%s: %+v, %v", c.args, r, err)
			continue
		}
		b, err := os.ReadFile("new")
		if err != nil {
			t.Fatal(err)
		}
		if size := binary.BigEndian.Uint64(b[c.size+48:]); size != uint64(c.size) || string(b[c.size+60:c.size+64]) != "\x00\x00\x00\x02" {
			t.Errorf("%s: the footer says %d bytes, % x", c.args, size, b[c.size:][:84])
		}
	}
}

// With SOURCE_DATE_EPOCH the same command makes the same file.
func TestReproducible(t *testing.T) {
	t.Chdir(t.TempDir())
	make := func(epoch, name string) [32]byte {
		t.Setenv("SOURCE_DATE_EPOCH", epoch)
		os.Remove(name)
		if r := run(t, "diskimg", "create", "-f", "vpc", name, "5M"); r.code != 0 {
			t.Fatal(r)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return sha256.Sum256(b)
	}
	first := make("1000000000", "a")
	if make("1000000000", "a") != first {
		t.Error("not the same")
	}
	if make("1000000001", "a") == first || make("1000000000", "b") == first {
		t.Error("all are the same")
	}
	t.Setenv("SOURCE_DATE_EPOCH", "soon")
	if r := run(t, "diskimg", "create", "-f", "vpc", "c", "5M"); r.code != 1 || !strings.Contains(r.stderr, "SOURCE_DATE_EPOCH") {
		t.Errorf("%+v", r)
	}
}

// A fixed VHD is known without its format being named, but not to qemu-img, and
// not to be written to.
func TestFixedVHD(t *testing.T) {
	t.Chdir(t.TempDir())
	if r := run(t, "diskimg", "create", "-f", "vpc", "-o", "subformat=fixed,force_size=on", "disk", "1M"); r.code != 0 {
		t.Fatal(r)
	}
	for _, c := range []struct {
		args, stdout, stderr string
	}{
		{args: "diskimg info disk", stdout: "file format: vpc\nvirtual size: 1 MiB (1048576 bytes)"},
		{args: "qemu-img info disk", stdout: "file format: raw\nvirtual size: 1 MiB (1049088 bytes)"},
		{args: "diskimg convert -O raw disk new", stdout: ""},
		{args: "diskimg compare -f raw -F raw new disk", stdout: "Warning: Image size mismatch!\n"},
		{args: "diskimg resize disk 2M", stderr: "diskimg: Could not open 'disk': the file ends like an image of the format vpc, " +
			"and so may a raw disk whose guest has written that; name the format, vpc or raw, to write to it\n"},
		{args: "diskimg resize -f vpc disk 2M", stdout: "Image resized.\n"},
		{args: "qemu-img resize disk 3M", stdout: "Image resized.\n"},
		{args: "diskimg info disk", stdout: "file format: raw\n"},
	} {
		r := run(t, strings.Fields(c.args)...)
		if !strings.Contains(r.stdout, c.stdout) || r.stderr != c.stderr && c.stderr != "" || (r.code != 0) != (c.stderr != "" || strings.Contains(c.stdout, "mismatch")) {
			t.Errorf("%s: %+v", c.args, r)
		}
	}
}
