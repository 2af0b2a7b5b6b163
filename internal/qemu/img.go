package qemu

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// noChecks is the exit code of qemu-img check for a format that has no check.
const noChecks = 63

// CheckResult is what qemu-img check says of an image.
type CheckResult struct {
	Format         string `json:"format"`
	CheckErrors    int64  `json:"check-errors"`
	Corruptions    int64  `json:"corruptions"`
	Leaks          int64  `json:"leaks"`
	ImageEnd       int64  `json:"image-end-offset"`
	TotalClusters  int64  `json:"total-clusters"`
	Allocated      int64  `json:"allocated-clusters"`
	Fragmented     int64  `json:"fragmented-clusters"`
	CompressedData int64  `json:"compressed-clusters"`
}

// Check runs qemu-img check, which must find nothing: no corruption, no leak,
// nothing that it could not look at. A format without checks passes.
func Check(t testing.TB, path, format string) CheckResult {
	t.Helper()
	r, err := TryCheck(path, format)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TryCheck is Check that returns an error for what was found.
func TryCheck(path, format string) (CheckResult, error) {
	var r CheckResult
	stdout, stderr, code := TryImg(append([]string{"check", "--output=json"}, Image(path, format)...)...)
	if code == noChecks {
		return r, nil
	}
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		return r, fmt.Errorf("qemu-img check of %s: exit code %d: %s%s", path, code, stdout, stderr)
	}
	if code != 0 || r.CheckErrors+r.Corruptions+r.Leaks != 0 {
		human, _, _ := TryImg(append([]string{"check"}, Image(path, format)...)...)
		return r, fmt.Errorf("qemu-img check of %s: exit code %d, %d errors, %d corruptions, %d leaks\n%s%s",
			path, code, r.CheckErrors, r.Corruptions, r.Leaks, human, stderr)
	}
	return r, nil
}

// Compare demands that both images hold the same disk.
func Compare(t testing.TB, a, formatA, b, formatB string) {
	t.Helper()
	Img(t, "compare", "-f", formatA, "-F", formatB, a, b)
}

// MapEntry is one line of qemu-img map.
type MapEntry struct {
	Start   int64  `json:"start"`
	Length  int64  `json:"length"`
	Depth   int    `json:"depth"`
	Present bool   `json:"present"`
	Zero    bool   `json:"zero"`
	Data    bool   `json:"data"`
	Offset  *int64 `json:"offset"` // nil when there is none
	File    string `json:"filename"`
}

// Map returns what qemu-img map says of an image.
func Map(t testing.TB, path, format string) []MapEntry {
	t.Helper()
	var m []MapEntry
	decode(t, Img(t, "map", "--output=json", "-f", format, path), &m)
	return m
}

// ImageInfo is what qemu-img info says of an image.
type ImageInfo struct {
	Filename      string `json:"filename"`
	Format        string `json:"format"`
	VirtualSize   int64  `json:"virtual-size"`
	ActualSize    int64  `json:"actual-size"`
	ClusterSize   int64  `json:"cluster-size"`
	Dirty         bool   `json:"dirty-flag"`
	Encrypted     bool   `json:"encrypted"`
	Compressed    bool   `json:"compressed"`
	BackingName   string `json:"backing-filename"`
	BackingFormat string `json:"backing-filename-format"`
	Specific      struct {
		Type string         `json:"type"`
		Data map[string]any `json:"data"`
	} `json:"format-specific"`
}

// Info returns what qemu-img info says of an image.
func Info(t testing.TB, path, format string) ImageInfo {
	t.Helper()
	var i ImageInfo
	decode(t, Img(t, "info", "--output=json", "-f", format, path), &i)
	return i
}

func decode(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("qemu-img printed JSON that can't be read: %v\n%s", err, text)
	}
}

// Create makes an image with creation options in qemu-img's names. A negative
// size leaves it to the backing file.
func Create(t testing.TB, path, format string, size int64, options map[string]string) {
	t.Helper()
	args := []string{"create", "-q", "-f", format}
	if o := Options(options); o != "" {
		args = append(args, "-o", o)
	}
	args = append(args, path)
	if size >= 0 {
		args = append(args, strconv.FormatInt(size, 10))
	}
	Img(t, args...)
}

// Options writes options as -o wants them, sorted by name.
func Options(options map[string]string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(options)) {
		list = append(list, k+"="+strings.ReplaceAll(options[k], ",", ",,"))
	}
	return strings.Join(list, ",")
}
