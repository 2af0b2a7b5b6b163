package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The same writes leave the same image file, to the byte, but for what tells
// when a VHD was made, and its UUID.
func TestBytes(t *testing.T) {
	writes := []string{
		"write -P 1 100k 200k", "write -P 2 3000000 1", "write -P 3 2M 4M", "write -P 4 0 512", "write -P 5 17000001 100000", "write -P 6 1M 64k", "writev -P 7 8M 1k 2k", "write -P 8 18M 1k",
	}
	for _, line := range []string{
		"-f vpc new 20M", "-f vpc -o force_size new 19M", "-f vpc -o subformat=fixed new 20M", "-f vpc -o subformat=fixed,force_size=on new 19M",
		"-f qed new 19M", "-f qed -o cluster_size=4k,table_size=2 new 19M", "-f qed -o cluster_size=1M new 19M", "-f qed -b base -F raw new 19M", "-f qed -o cluster_size=4k -b base -F raw new 19M", "-f raw new 19M",
	} {
		t.Run(line, func(t *testing.T) {
			args, format := words(line), words(line)[1]
			ours, theirs := t.TempDir(), t.TempDir()
			for _, dir := range []string{ours, theirs} {
				if err := os.WriteFile(filepath.Join(dir, "base"), bytes.Repeat([]byte("base"), 1<<20), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			if r := runTheirs(t, theirs, append([]string{"create"}, args...)...); r.code != 0 {
				t.Fatal(r)
			}
			if r := runOurs(t, ours, append([]string{"create"}, args...)...); r.code != 0 {
				t.Fatal(r)
			}
			for _, write := range writes {
				if write := []string{"-f", format, "-c", write, "new"}; theirIO(t, theirs, write, "").code != 0 || run(t, append([]string{qemuIO}, write...)...).code != 0 {
					t.Fatal(write)
				}
				if got, want := imageBytes(t, ours), imageBytes(t, theirs); !bytes.Equal(got, want) {
					t.Fatalf("after %s the files of %d and %d bytes differ", write, len(got), len(want))
				}
			}
		})
	}
}

// imageBytes returns the file new without time and UUID of a VHD.
func imageBytes(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "new"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, len(b) - 512} {
		if strings.HasPrefix(string(b[at:]), "conectix") {
			clear(b[at+24:][:4])
			clear(b[at+64:][:20])
		}
	}
	return b
}
