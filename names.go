package diskimg

// This file reads image names in QEMU's syntax: plain paths, file:PATH,
// json:{…} and the key=value lists of --image-opts. Of what QEMU can name it
// knows a file and how to read it; all else is refused by name.

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/size"
)

// Target is a file and how to read it.
type Target struct {
	Path   string
	Format string // empty: not stated
	// Offset and Size are the window of the file that is the disk, in bytes.
	// For raw images only; a Size of 0 is all the rest.
	Offset, Size int64
	// ReadOnly forbids opening it for writing.
	ReadOnly bool
	// ForceShare is OpenOptions.ForceShare.
	ForceShare bool
	// Faults are rules by which the file fails; nil for none.
	Faults *Faults
	// Null is a disk without a file, in place of the path's.
	Null *Null
	// KeySecret names the passphrase of an encrypted image, see KeyRequest.
	KeySecret string
	// EncryptFormat is how a qcow2 image is encrypted, aes or luks; if it is not
	// empty and not so, the image is refused.
	EncryptFormat string
	// Backing is what is to be known of the image below besides what this one
	// says of it: what is not empty counts. Nil for nothing.
	Backing *Target

	unknown string // an option that is not known, which the format has to refuse
}

// ParseTarget reads a name in QEMU's syntax.
func ParseTarget(name string) (Target, error) {
	protocol, rest := cutProtocol(name)
	switch protocol {
	case "":
		return Target{Path: name}, nil
	case "file":
		if p, _ := cutProtocol(rest); p != "" {
			rest = "./" + rest // a name as that of a protocol, but a path
		}
		return Target{Path: rest}, nil
	case "json":
		return parseJSONTarget(rest)
	case "blkdebug":
		return parseBlkdebug(rest)
	case "null-co", "null-aio":
		return Target{Path: name, Null: &Null{Size: defaultNullSize}}, nil
	}
	return Target{}, refuseProtocol(protocol)
}

// cutProtocol splits a name before whose first slash there is a colon. A
// letter alone before it is a Windows drive.
func cutProtocol(name string) (protocol, rest string) {
	i := strings.IndexAny(name, ":/")
	if i < 0 || name[i] != ':' || filepath.VolumeName(name) != "" {
		return "", name
	}
	return name[:i], name[i+1:]
}

// foreignProtocols are those that QEMU knows and this module does not.
var foreignProtocols = []string{"blklogwrites", "blkverify", "fat", "ftp", "ftps", "gluster", "host_device",
	"http", "https", "iscsi", "iser", "nbd", "nbd+tcp", "nbd+unix", "nfs", "nvme", "rbd", "sftp", "ssh", "vxhs"}

func refuseProtocol(protocol string) error {
	if slices.Contains(foreignProtocols, protocol) {
		return block.Unsupportedf("Protocol '%s' is not supported; an image can be opened from a file only", protocol)
	}
	return block.Unsupportedf("Unknown protocol '%s'", protocol)
}

func parseJSONTarget(text string) (Target, error) {
	var tree any
	if err := json.Unmarshal([]byte(doubleQuotes(text)), &tree); err != nil {
		return Target{}, block.Invalidf("Could not parse the JSON options: JSON parse error, %w", err)
	}
	object, ok := tree.(map[string]any)
	if !ok {
		return Target{}, block.Invalidf("Invalid JSON object given")
	}
	options := map[string]string{}
	flatten(options, "", object)
	return TargetFromOptions(options)
}

// doubleQuotes makes JSON of text in which strings may be in single quotes, as
// QEMU's may.
func doubleQuotes(text string) string {
	var b strings.Builder
	quote := byte(0)
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && quote != 0 && i+1 < len(text):
			i++
			if text[i] != '\'' {
				b.WriteByte(c)
			}
			c = text[i]
		case quote == '\'' && c == '"':
			b.WriteByte('\\')
		case c == quote:
			quote, c = 0, '"'
		case quote == 0 && (c == '"' || c == '\''):
			quote, c = c, '"'
		}
		b.WriteByte(c)
	}
	return b.String()
}

// flatten turns nested objects into keys joined with dots; the elements of a
// list are numbered.
func flatten(into map[string]string, prefix string, object map[string]any) {
	for key, value := range object {
		switch v := value.(type) {
		case map[string]any:
			flatten(into, prefix+key+".", v)
		case []any:
			for i, element := range v {
				flatten(into, prefix, map[string]any{fmt.Sprint(key, ".", i): element})
			}
		case float64:
			into[prefix+key] = fmt.Sprintf("%.0f", v)
		case nil:
			into[prefix+key] = ""
		default:
			into[prefix+key] = fmt.Sprint(v)
		}
	}
}

// TargetFromOptions reads a description by keys such as driver, file.filename,
// offset, size, read-only and force-share.
func TargetFromOptions(options map[string]string) (Target, error) {
	var t Target
	rest := maps.Clone(options)
	take := func(key string) string {
		value := rest[key]
		delete(rest, key)
		return value
	}
	if err := t.takeBacking(rest); err != nil {
		return t, err
	}
	driver := take("driver")
	prefix := "file."
	if isProtocol(driver) {
		rest["driver"] = driver
		driver, prefix = "raw", ""
	}
	if err := t.takeFile(rest, prefix); err != nil {
		return t, err
	}
	t.Format = driver
	if t.Path == "" {
		return t, missingFile(driver, options)
	}
	t.takeEncryption(take)
	if err := t.takeFlags(take); err != nil {
		return t, err
	}
	if len(rest) > 0 {
		t.unknown = slices.Min(slices.Collect(maps.Keys(rest)))
	}
	if driver != "" {
		return t, t.noOption(driver)
	}
	return t, nil
}

// noOption refuses an option that the format does not have.
func (t *Target) noOption(format string) error {
	if t.unknown == "" {
		return nil
	}
	if name, ok := strings.CutPrefix(t.unknown, "encrypt."); ok && format == "qcow2" {
		return block.Invalidf("Parameter '%s' is unexpected", name)
	}
	return block.Unsupportedf("Block format '%s' does not support the option '%s'", format, t.unknown)
}

// missingFile says what is wrong with options that name no file.
func missingFile(driver string, options map[string]string) error {
	if driver == "" && options["file"] == "" {
		return block.Invalidf("Must specify either driver or file")
	}
	if _, err := FindFormat(driver); driver != "" && err != nil {
		return err
	}
	return missingChild("file", options)
}

// takeBacking moves the options of the image below out of options.
func (t *Target) takeBacking(options map[string]string) error {
	below := map[string]string{}
	for key, value := range options {
		if name, ok := strings.CutPrefix(key, "backing."); ok {
			below[name] = value
			delete(options, key)
		}
	}
	if len(below) == 0 {
		return nil
	}
	unnamed := below["file.filename"] == ""
	if unnamed {
		below["file.filename"] = "-" // it stands in the image above
	}
	b, err := TargetFromOptions(below)
	if unnamed {
		b.Path = ""
	}
	t.Backing = &b
	return err
}

// over returns t, or if it names no file u with what else t says.
func (t Target) over(u Target) Target {
	if t.Path != "" {
		return t
	}
	u.Format, u.KeySecret = cmp.Or(t.Format, u.Format), cmp.Or(t.KeySecret, u.KeySecret)
	u.EncryptFormat, u.Backing = cmp.Or(t.EncryptFormat, u.EncryptFormat), cmp.Or(t.Backing, u.Backing)
	return u
}

// takeEncryption reads what is said of an encrypted image.
func (t *Target) takeEncryption(take func(string) string) {
	switch t.Format {
	case "qcow2", "":
		t.KeySecret, t.EncryptFormat = take("encrypt.key-secret"), take("encrypt.format")
	case "luks":
		t.KeySecret = take("key-secret")
	}
}

func (t *Target) takeFlags(take func(string) string) error {
	for key, flag := range map[string]*bool{"read-only": &t.ReadOnly, "force-share": &t.ForceShare} {
		value := take(key)
		on, ok := switches[value]
		if value != "" && !ok {
			return block.Invalidf("Parameter '%s' expects 'on' or 'off'", key)
		}
		*flag = on
	}
	if t.Format != "raw" {
		return nil
	}
	for key, number := range map[string]*int64{"offset": &t.Offset, "size": &t.Size} {
		value := take(key)
		if value == "" {
			continue
		}
		n, err := size.Parse(value)
		if err != nil || n > math.MaxInt64 {
			return block.Invalidf("Parameter '%s' expects a size", key)
		}
		*number = int64(n)
	}
	return nil
}

// BackingPath returns the name by which an image at path from finds a file
// that it refers to as name: names are relative to the image that holds them.
func BackingPath(from, name string) string {
	protocol, _ := cutProtocol(name)
	if name == "" || protocol != "" || filepath.IsAbs(name) {
		return name
	}
	return from[:len(from)-len(baseName(from))] + name
}

// baseName is what follows the last separator.
func baseName(path string) string {
	i := len(path)
	for i > 0 && path[i-1] != '/' && path[i-1] != filepath.Separator {
		i--
	}
	return path[i:]
}
