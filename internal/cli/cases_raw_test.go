package cli

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// rawLines are about disks without a format: windows of files, and what a disk
// that was only taken for raw may not become.
var rawLines = []string{
	"info --image-opts driver=raw,size=1000,file.filename=raw", "info --image-opts driver=raw,size=4M,file.filename=raw", "info --image-opts driver=raw,offset=4M,file.filename=raw", "info --image-opts driver=raw,offset=1M,size=64k,file.filename=raw",
	"info --image-opts driver=raw,offset=x,file.filename=raw", "info --image-opts driver=raw,offset=-1,file.filename=raw", "info --image-opts driver=raw,offset=1M,size=3M,file.filename=raw",
	"map --image-opts driver=raw,offset=1M,size=128k,file.filename=raw", "map --output=json --image-opts driver=raw,offset=1M,size=128k,file.filename=raw", "map --output=json --image-opts driver=raw,offset=1000,file.filename=raw", "map --output=json --image-opts driver=raw,offset=200k,size=100k,file.filename=raw",
	`map --output=json 'json:{"driver":"raw","offset":1048576,"size":65536,"file":{"driver":"file","filename":"raw"}}'`,
	"convert -O raw --image-opts driver=raw,offset=1M,size=64k,file.filename=raw new", "convert -O qcow2 --image-opts driver=raw,offset=1000,file.filename=raw new", "convert -O raw --image-opts driver=raw,size=512,file.filename=raw new", "convert -O qcow2 --image-opts driver=raw,offset=1M,file.filename=odd new",
	"compare --image-opts driver=raw,offset=1M,size=64k,file.filename=raw driver=raw,offset=1M,size=64k,file.filename=raw", "compare --image-opts driver=raw,offset=1M,size=64k,file.filename=raw driver=raw,offset=0,size=64k,file.filename=raw",
	"resize --image-opts driver=raw,offset=1M,size=64k,file.filename=raw 128k", "resize --image-opts driver=raw,offset=1M,file.filename=raw 3M", "resize --shrink --image-opts driver=raw,offset=1M,file.filename=raw 1M",
	"convert --target-image-opts -n q3 driver=raw,offset=0,file.filename=longer2", "convert --target-image-opts -n q3 driver=raw,offset=1M,size=4M,file.filename=vhd", "convert -n -O raw q raw", "convert -n -O raw dir/over raw",
	"create -f qcow2 -b 'json:{\"driver\":\"raw\",\"offset\":1048576,\"file.filename\":\"raw\"}' -F raw new", "create -f qcow2 -b 'json:{\"driver\":\"raw\",\"offset\":1048576,\"size\":65536,\"file.filename\":\"raw\"}' -F raw new",
	"info --image-opts driver=raw,file.driver=host_device,file.filename=missing",
}

func TestRaw(t *testing.T) {
	allowed := []difference{
		{lines: "map .*offset=1000.*", why: "an offset within a sector is right, too", stdout: ".*\"length\": 261144,.*\"offset\": 1000}.*", stderr: nothing, code: success},
		{lines: "convert .*offset=1000.*", why: "an offset within a sector is right, too", images: true},
	}
	differential(t, sample(rawLines, allowed), allowed...)
}

// loopDevice makes a block device of 8 MiB.
func loopDevice(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte("a disk"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 8<<20); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", path).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device: %v: %s", err, out)
	}
	name := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "--detach", name).Run() })
	return name
}

// Disks on block devices, which keep their length: what both programs print, how
// they end and what they leave on the device.
func TestDevice(t *testing.T) {
	w := world(t)
	ours, theirs := newTwin(t, w), newTwin(t, w)
	for _, twin := range []*twin{ours, theirs} {
		name := loopDevice(t, twin.dir+"/disk")
		if err := os.Symlink(name, twin.dir+"/dev"); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ line, stderr string }{
		{"info dev", ""}, {"info -f raw dev", ""}, {"info --image-opts driver=raw,file.driver=host_device,file.filename=dev", ""}, {"map -f raw dev", ""}, {"map --output=json -f raw dev", ""},
		{"convert -n -O raw q dev", ""}, {"compare -F raw q dev", ""}, {"convert -O raw q dev", ""}, {"convert -n -S 0 -O raw raw dev", ""}, {"convert -f raw -O raw dev new", ""},
		{"create -f raw dev 4M", ""}, {"create -f raw dev 9M", "qemu-img: dev: 9437184 bytes do not fit on a device of 8388608 bytes\n"},
		{"resize -f raw dev 16M", "qemu-img: truncate dev: 16777216 bytes do not fit on a device of 8388608 bytes\n"}, {"resize -f raw --shrink dev 4M", ""},
		{"create -f qcow2 dev 4M", ""}, {"convert -n -O qcow2 q dev", ""}, {"check dev", ""}, {"info dev", ""}, {"convert -O raw dev new", ""}, {"resize dev 5M", ""}, {"snapshot -c x dev", ""}, {"convert -O raw dev new", ""},
		{"create -f qed dev 4M", "qemu-img: dev: a QED image needs an empty file that can grow, not one that has 8388608 bytes\n"}, {"create -f vpc -o subformat=foo dev 4M", ""},
	} {
		t.Run(c.line, func(t *testing.T) {
			got, want := runOurs(t, ours.dir, words(c.line)...), runTheirs(t, theirs.dir, words(c.line)...)
			if c.stderr != "" {
				want.stderr = c.stderr
			}
			if got.stdout != want.stdout || normalize(got.stderr) != normalize(want.stderr) || got.code != want.code {
				t.Errorf("%+v, qemu-img has %+v", got, want)
			}
			if r := runTheirs(t, ours.dir, "compare", "-f", "raw", "-F", "raw", "new", theirs.dir+"/new"); strings.HasSuffix(c.line, "new") && r.code != 0 {
				t.Errorf("what was read from the device: %+v", r)
			}
		})
	}
}
