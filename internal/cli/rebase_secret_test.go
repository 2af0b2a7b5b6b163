package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/internal/qemu"
)

// An encrypted overlay reads the same after it has been rebased, and what comes
// into it is encrypted; so with qemu-img, and one program reads what the other
// has left.
func TestRebaseEncrypted(t *testing.T) {
	qemu.Need(t, "qemu-img", "qemu-io")
	const key = "encrypt.key-secret=" + qemu.SecretID
	for method, names := range map[string][]string{"aes": {"", "longer"}, "luks,encrypt.iter-time=1": {"base2", ""}} {
		for _, to := range names {
			t.Run(method+" to "+to, func(t *testing.T) {
				dir := t.TempDir()
				script := fmt.Sprintf(`set -e
					for b in base1 base2; do qemu-img create -q -f qcow2 $b 2M; done; qemu-img create -q -f qcow2 longer 5M
					qemu-io -c 'write -P 1 0 1M' base1 >/dev/null; qemu-io -c 'write -P 1 0 256k' -c 'write -P 2 256k 1M' base2 >/dev/null; qemu-io -c 'write -P 3 512k 4M' longer >/dev/null
					until qemu-img create -q -f qcow2 %[1]s -o encrypt.format=%[2]s,%[3]s -b base1 -F qcow2 over 4M 2>err; do grep -q '%[4]s' err; done
					qemu-io %[1]s --image-opts driver=qcow2,file.filename=over,%[3]s -c 'write -P 5 100k 200k' -c 'write -z 700k 100k' >/dev/null; cp over twin`,
					qemu.Secret[0]+" '"+qemu.Secret[1]+"'", method, key, qemu.NoClock)
				cmd := exec.Command("bash", "-c", script)
				cmd.Dir = dir
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				t.Chdir(dir)
				want := plain(t, "over", key)
				rebase := func(name string) []string {
					args := append([]string{"rebase"}, qemu.Secret...)
					if to == "" {
						args = append(args, "-b", "")
					} else {
						args = append(args, "-b", filepath.Join(dir, to), "-F", "qcow2")
					}
					return append(args, "--image-opts", "driver=qcow2,file.filename="+name+","+key)
				}
				if r := run(t, append([]string{"qemu-img"}, rebase("over")...)...); r.code != 0 {
					t.Fatal(r.stderr)
				}
				qemu.Img(t, rebase("twin")...)
				for _, name := range []string{"over", "twin"} {
					if plain(t, name, key) != want {
						t.Errorf("%s reads otherwise", name)
					}
					qemu.Check(t, name, "qcow2")
					b, err := os.ReadFile(filepath.Join(dir, name))
					if err != nil {
						t.Fatal(err)
					}
					for _, p := range []string{"\x01", "\x02", "\x03", "\x05"} {
						if strings.Contains(string(b), strings.Repeat(p, 64)) {
							t.Errorf("%s holds what is not encrypted", name)
						}
					}
				}
			})
		}
	}
}

// plain returns what an encrypted disk reads as, both programs agreeing.
func plain(t *testing.T, name, key string) string {
	t.Helper()
	args := func(out string) []string {
		return append(append([]string{"convert"}, qemu.Secret...), "--image-opts", "-O", "raw", "driver=qcow2,file.filename="+name+","+key, out)
	}
	qemu.Img(t, args("theirs")...)
	if r := run(t, append([]string{"qemu-img"}, args("ours")...)...); r.code != 0 {
		t.Fatal(r.stderr)
	}
	ours, err := os.ReadFile("ours")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile("theirs")
	if err != nil || string(ours) != string(theirs) {
		t.Errorf("QEMU reads %s otherwise: %v", name, err)
	}
	return string(ours)
}
