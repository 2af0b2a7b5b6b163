package size

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var parseCases = []struct {
	in   string
	want uint64
	err  error
}{
	{"0", 0, nil}, {"1", 1, nil}, {"1b", 1, nil}, {"1B", 1, nil}, {"512", 512, nil},
	{"1k", 1 << 10, nil}, {"1K", 1 << 10, nil}, {"1m", 1 << 20, nil}, {"3G", 3 << 30, nil},
	{"1t", 1 << 40, nil}, {"1P", 1 << 50, nil}, {"7E", 7 << 60, nil}, {"1e", 1 << 60, nil},
	{"1.5G", 3 << 29, nil}, {"1.1k", 1126, nil}, {"0.0001k", 0, nil}, {"1.k", 1024, nil},
	{"1.23456789M", 1294538, nil}, {"0.1G", 107374182, nil}, {"1.0", 1, nil}, {"1.0b", 1, nil},
	{"7.9E", 9108079886394091136, nil}, {"010", 10, nil}, {"+5", 5, nil}, {" 5", 5, nil},
	{"0x10", 16, nil}, {"0X1f", 31, nil}, {"0x10k", 16384, nil}, {"0x10b", 267, nil}, {"0x1e", 30, nil},
	{"15E", 15 << 60, nil}, {"18446744073709551615", math.MaxUint64, nil},
	{"16E", 0, ErrRange}, {"18446744073709551616", 0, ErrRange}, {"0x10000000000000000", 0, ErrRange},
	{"15.99999999999999999999E", 0, ErrRange},
	{"", 0, ErrSyntax}, {"k", 0, ErrSyntax}, {"x", 0, ErrSyntax}, {"1x", 0, ErrSyntax}, {"1kk", 0, ErrSyntax},
	{"1kB", 0, ErrSyntax}, {"1.5", 0, ErrSyntax}, {"0.5", 0, ErrSyntax}, {".5k", 0, ErrSyntax}, {"1.5b", 0, ErrSyntax},
	{"1e3", 0, ErrSyntax}, {"1e3k", 0, ErrSyntax}, {"1.e1", 0, ErrSyntax}, {"1e-1k", 0, ErrSyntax},
	{"-5", 0, ErrSyntax}, {"-0", 0, ErrSyntax}, {"5 ", 0, ErrSyntax}, {"1,5", 0, ErrSyntax},
	{"nan", 0, ErrSyntax}, {"inf", 0, ErrSyntax}, {"0xk", 0, ErrSyntax}, {"0x", 0, ErrSyntax},
	{"0x1p3", 0, ErrSyntax}, {"0x1.8k", 0, ErrSyntax}, {"0x1kk", 0, ErrSyntax}, {"1.-5k", 0, ErrSyntax},
	{"\u0661k", 0, ErrSyntax}, {"1\u212a", 0, ErrSyntax}, {"++1", 0, ErrSyntax},
}

func TestParse(t *testing.T) {
	for _, c := range parseCases {
		got, err := Parse(c.in)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("Parse(%q) = %d, %v; want %d, %v", c.in, got, err, c.want, c.err)
		}
	}
}

func TestHexWithSuffix(t *testing.T) {
	for s, want := range map[string]bool{"0x10k": true, " +0x1p3": true, "0x10": false, "0x10b": false, "10k": false} {
		if HexWithSuffix(s) != want {
			t.Errorf("HexWithSuffix(%q) = %v", s, !want)
		}
	}
}

var formatCases = map[int64]string{
	0: "0 B", 1: "1 B", 512: "512 B", 999: "999 B", 1000: "0.977 KiB", 1023: "0.999 KiB", 1024: "1 KiB",
	1536: "1.5 KiB", 102400: "100 KiB", 1022976: "999 KiB", 1023488: "1e+03 KiB", 1024000: "0.977 MiB",
	1 << 20: "1 MiB", 1 << 30: "1 GiB", 1 << 60: "1 EiB", 1125899906842624000: "0.977 EiB", math.MaxInt64: "8 EiB",
}

func TestFormat(t *testing.T) {
	for n, want := range formatCases {
		if got := Format(n); got != want {
			t.Errorf("Format(%d) = %q, want %q", n, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range parseCases {
		f.Add(c.in)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := Parse(s); err != nil && err != ErrSyntax && err != ErrRange {
			t.Errorf("Parse(%q): %v", s, err)
		}
	})
}

func qemuImg(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("qemu-img")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("qemu-img is not installed")
	} else if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAgainstQEMU asks qemu-img what it makes of the same strings and numbers.
func TestAgainstQEMU(t *testing.T) {
	program, dir := qemuImg(t), t.TempDir()
	for _, c := range parseCases {
		if c.err == nil && c.want > 1<<62 {
			continue
		}
		image := filepath.Join(dir, "image")
		out, _ := exec.Command(program, "create", "-f", "raw", "--", image, c.in).CombinedOutput()
		shown := fmt.Sprintf("size=%d\n", c.want)
		switch {
		case c.err == nil && !strings.Contains(string(out), shown):
			t.Errorf("%q: we read %d, qemu-img says %s", c.in, c.want, out)
		case c.err == ErrSyntax && !strings.Contains(string(out), "You may use k, M, G"),
			c.err == ErrRange && !strings.Contains(string(out), "Must be between 0 and"):
			t.Errorf("%q: we say %v, qemu-img says %s", c.in, c.err, out)
		}
	}
	for n, want := range formatCases {
		if n%512 != 0 || n > 1<<40 {
			continue
		}
		image := filepath.Join(dir, "image")
		if err := os.WriteFile(image, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, n); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(program, "info", "-f", "raw", image).Output()
		if shown := fmt.Sprintf("virtual size: %s (%d bytes)\n", want, n); err != nil || !strings.Contains(string(out), shown) {
			t.Errorf("%d: we print %q, qemu-img %s", n, want, out)
		}
	}
}
