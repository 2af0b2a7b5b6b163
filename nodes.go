package diskimg

// This file reads what stands between a format and its file: the drivers
// blkdebug, null-co and null-aio, which QEMU's test suite and others who try out
// failures use.

import (
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/internal/size"
	"github.com/diskimg/diskimg/raw"
	"github.com/diskimg/diskimg/storage"
	"github.com/diskimg/diskimg/storage/blkdebug"
)

// Faults are rules by which the file of an image fails; see package
// storage/blkdebug.
type Faults = blkdebug.Rules

// Null is a disk without a file: what is written to it is gone.
type Null struct {
	Size int64 // bytes
}

// defaultNullSize is how large QEMU makes a null disk.
const defaultNullSize = 1 << 30

// parseBlkdebug reads what follows "blkdebug:", a configuration file, which may
// be none, and an image.
func parseBlkdebug(rest string) (Target, error) {
	config, image, ok := strings.Cut(rest, ":")
	if !ok {
		return Target{}, block.Invalidf("blkdebug requires both config file and image path")
	}
	t, err := ParseTarget(image)
	if err != nil {
		return t, err
	}
	_, err = t.addFaults(config, nil)
	return t, err
}

// addFaults reads rules from a configuration file, if there is one, and from
// options, of which it returns those that are about no rule.
func (t *Target) addFaults(config string, options map[string]string) (rest map[string]string, err error) {
	var text []byte
	if config != "" {
		if text, err = readConfig(config); err != nil {
			return nil, err
		}
	}
	t.Faults, rest, err = blkdebug.Parse(text, options)
	return rest, err
}

// readConfig reads at most a little more than what Parse takes.
func readConfig(path string) ([]byte, error) {
	f, err := storage.OpenFile(path, nil)
	if info, serr := os.Stat(path); serr == nil && info.IsDir() {
		return nil, block.Invalidf("Cannot read config file: Is a directory")
	}
	if err != nil {
		return nil, block.Invalidf("Could not read blkdebug config file: %s", sentence.Of(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 2<<20))
	if err != nil {
		return nil, block.Invalidf("Cannot read config file: %s", sentence.Of(err))
	}
	return text, nil
}

// hints are options of blkdebug that limit requests. There is nothing here that
// would be larger.
var hints = []string{"align", "max-transfer", "opt-write-zero", "max-write-zero", "opt-discard", "max-discard",
	"take-child-perms", "unshare-child-perms", "node-name", "read-only", "discard", "detect-zeroes", "cache.direct", "cache.no-flush"}

// isProtocol reports whether a driver stands for a file and no format.
func isProtocol(driver string) bool {
	return slices.Contains([]string{"file", "blkdebug", "null-co", "null-aio"}, driver)
}

// takeFile moves the options of the file, which begin with prefix, out of
// options.
func (t *Target) takeFile(options map[string]string, prefix string) error {
	own := map[string]string{}
	for key, value := range options {
		if name, ok := strings.CutPrefix(key, prefix); ok && (prefix != "" || key != "read-only" && key != "force-share") {
			own[name] = value
			delete(options, key)
		}
	}
	driver, filename := own["driver"], own["filename"]
	delete(own, "driver")
	delete(own, "filename")
	switch driver {
	case "blkdebug":
		return t.takeBlkdebug(filename, own)
	case "null-co", "null-aio":
		return t.takeNull(driver, own)
	case "", "file":
		maps.Copy(options, prefixed(prefix, own, "locking", "aio", "cache.direct", "cache.no-flush", "node-name", "discard"))
		return t.takePath(driver, filename)
	}
	return refuseProtocol(driver)
}

// prefixed returns the options but those that make no difference here, by their
// full names.
func prefixed(prefix string, own map[string]string, ignored ...string) map[string]string {
	rest := map[string]string{}
	for key, value := range own {
		if !slices.Contains(ignored, key) {
			rest[prefix+key] = value
		}
	}
	return rest
}

// takePath reads a file name, which may begin with a protocol if no driver is
// given.
func (t *Target) takePath(driver, filename string) error {
	if protocol, _ := cutProtocol(filename); driver == "file" || protocol == "" {
		t.Path = filename
		return nil
	}
	below, err := ParseTarget(filename)
	t.Path, t.Faults, t.Null = below.Path, below.Faults, below.Null
	return err
}

func (t *Target) takeBlkdebug(filename string, own map[string]string) error {
	config := own["config"]
	delete(own, "config")
	if rest, ok := strings.CutPrefix(filename, "blkdebug:"); ok {
		below, err := parseBlkdebug(rest)
		if err != nil {
			return err
		}
		t.Path, t.Null = below.Path, below.Null
		filename = ""
	} else if filename != "" {
		own["image.filename"] = filename
	}
	if t.Path == "" {
		if err := t.takeFile(own, "image."); err != nil {
			return err
		}
	}
	if t.Path == "" {
		return missingChild("image", own)
	}
	rest, err := t.addFaults(config, own)
	for _, key := range slices.Sorted(maps.Keys(rest)) {
		if !slices.Contains(hints, key) {
			return block.Unsupportedf("Block protocol 'blkdebug' doesn't support the option '%s'", key)
		}
	}
	return err
}

// missingChild says what is wrong with options that do not say what a driver is
// to work on.
func missingChild(child string, options map[string]string) error {
	if name := options[child]; name != "" {
		return block.Invalidf("Cannot find device='%s' nor node-name='%[1]s'", name)
	}
	return block.Invalidf("A block device must be specified for \"%s\"", child)
}

func (t *Target) takeNull(driver string, own map[string]string) error {
	t.Path, t.Null = driver+"://", &Null{Size: defaultNullSize}
	for _, key := range slices.Sorted(maps.Keys(own)) {
		switch key {
		case "size":
			n, err := size.Parse(own[key])
			if err != nil || n > math.MaxInt64 {
				return block.Invalidf("Parameter 'size' expects a size")
			}
			t.Null.Size = int64(n)
		case "read-zeroes", "latency-ns", "node-name":
		default:
			return block.Unsupportedf("Block protocol '%s' doesn't support the option '%s'", driver, key)
		}
	}
	return nil
}

// openNull makes an image of a disk without a file.
func (t Target) openNull(o *OpenOptions) (*Image, error) {
	var f block.File = &nullFile{t.Null.Size}
	if t.Faults != nil {
		f = t.Faults.Wrap(f)
	}
	return raw.Open(f, &raw.OpenOptions{Path: t.Path, Writable: o.Writable})
}

// nullFile reads as zero and forgets what is written.
type nullFile struct{ size int64 }

func (f *nullFile) ReadAt(p []byte, off int64) (int, error) {
	n := max(0, min(int64(len(p)), f.size-off))
	clear(p[:n])
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (f *nullFile) WriteAt(p []byte, off int64) (int, error)       { return len(p), nil }
func (f *nullFile) WriteZeroes(off, n int64) error                 { return nil }
func (f *nullFile) PunchHole(off, n int64) error                   { return nil }
func (f *nullFile) NextData(off int64) (start, end int64, _ error) { return f.size, f.size, nil }
func (f *nullFile) Size() (int64, error)                           { return f.size, nil }
func (f *nullFile) Truncate(size int64) error                      { return block.ErrUnsupported }
func (f *nullFile) Sync() error                                    { return nil }
func (f *nullFile) Close() error                                   { return nil }
