package diskimg

// This file reads image names in QEMU's syntax: plain paths, names that begin
// with a protocol, and json:{…}. What they come to are options, see nodes.go.

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/diskimg/diskimg/block"
)

// Target is an image: a file and how to read it. It may be a tree, as that of
// the block layer of QEMU is: the file of one image can be the disk of another.
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
	// File is an image whose disk is the file of this one, Null a disk that is
	// nowhere, and Quorum one that is in several places; each in place of the
	// file at Path.
	File   *Target
	Null   *Null
	Quorum *Quorum
	// Copy is a raw image that must always be the same as the file: a
	// difference is an error. Nil for none.
	Copy *Target
	// Faults are rules by which the file fails; nil for none.
	Faults *Faults
	// KeySecret names the passphrase of an encrypted image, see KeyRequest.
	KeySecret string
	// EncryptFormat is how a qcow2 image is encrypted, aes or luks; if it is not
	// empty and not so, the image is refused.
	EncryptFormat string
	// Backing is the image below. Of what it leaves out, the path and the
	// format, the image itself says which. Nil: the image says all.
	Backing *Target
	// NoBacking is OpenOptions.NoBacking.
	NoBacking bool
	// Data is the external data file, in place of the one that the image
	// names.
	Data *Target
	// CopyOnRead is OpenOptions.CopyOnRead.
	CopyOnRead bool
	// IgnoreDiscards is OpenOptions.IgnoreDiscards; nil leaves it to them.
	IgnoreDiscards *bool
	// Compress has all that is written to File stored compressed.
	Compress bool
	// Settings are further options for the format, by QEMU's names: see
	// Format.Runtime.
	Settings map[string]string

	keepSpace bool   // the file gives no space back to the file system
	driver    string // what QEMU calls it, if it is no format
	device    bool   // the path is a device
	config    string // the file that Faults were read from
	inline    bool   // … besides options
	name      string // see Name
}

// Name returns the name of the target in QEMU's syntax: its path where that
// says all that there is to say.
func (t Target) Name() string { return cmp.Or(t.name, t.Path) }

// setName gives a name to what was read from options, if its path is not one.
func (t *Target) setName(options map[string]string) {
	if name := t.nameOf(options); name != t.Path {
		t.name = name
	}
}

// nameOf returns the name of what was read from options.
func (t *Target) nameOf(options map[string]string) string {
	plain := t.Offset == 0 && t.Size == 0 && !t.Compress && !t.CopyOnRead && !t.NoBacking && t.Backing == nil && t.Data == nil
	switch {
	case plain && t.Faults != nil && !t.inline && t.File == nil && t.Null == nil:
		return "blkdebug:" + t.config + ":" + t.Path
	case plain && t.Copy != nil && t.Copy.Name() == t.Copy.Path:
		return "blkverify:" + t.Copy.Path + ":" + t.Path
	case plain && t.Faults == nil && t.File == nil && t.Quorum == nil && (t.Null == nil || t.Null.Size == defaultNullSize):
		return t.Path
	}
	text, err := json.Marshal(nested(options, t.Format))
	if err != nil {
		return t.Path
	}
	return "json:" + strings.NewReplacer(`":`, `": `, `,"`, `, "`, `},{`, `}, {`).Replace(string(text))
}

// nested makes an object of options, with one for each child.
func nested(options nodeOptions, driver string) map[string]any {
	object := map[string]any{}
	own := nodeOptions(maps.Clone(options))
	for _, role := range []string{"file", "image", "raw", "test", "backing", "data-file"} {
		if child := own.child(role); child != nil {
			object[role] = nested(child, "")
		}
	}
	nestedLists(own, object)
	for key, value := range own {
		object[key] = value
		if _, err := strconv.ParseUint(value, 10, 64); err == nil {
			object[key] = json.Number(value)
		}
	}
	switch {
	case own["driver"] != "":
	case driver != "":
		object["driver"] = driver
	case own["filename"] != "":
		object["driver"] = "file"
	}
	return object
}

// Driver returns what QEMU calls the driver of the target where it is not a
// format but a protocol or a filter, such as file or copy-on-read.
func (t Target) Driver() string { return t.driver }

// IsProtocol reports whether the target is a file without a format.
func (t Target) IsProtocol() bool { return isProtocol(t.driver) }

// ParseTarget reads a name in QEMU's syntax.
func ParseTarget(name string) (Target, error) { return ParseTargetWith(name, nil) }

// ParseTargetWith reads a name in QEMU's syntax together with options, which
// count more than those in the name.
func ParseTargetWith(name string, options map[string]string) (Target, error) {
	all := map[string]string{}
	text, isJSON := strings.CutPrefix(name, "json:")
	if isJSON {
		if err := parseJSON(all, text); err != nil {
			return Target{}, err
		}
		name = ""
	}
	if name == "" && !isJSON && options == nil {
		return Target{}, nil
	}
	maps.Copy(all, options)
	t, err := parseNode(maps.Clone(all), name)
	if name != "" {
		all["file.filename"] = name
	}
	t.setName(all)
	return t, err
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
var foreignProtocols = []string{"blklogwrites", "fat", "ftp", "ftps", "gluster",
	"http", "https", "iscsi", "iser", "nbd", "nbd+tcp", "nbd+unix", "nfs", "nvme", "rbd", "sftp", "ssh", "vxhs"}

func refuseProtocol(protocol string) error {
	if slices.Contains(foreignProtocols, protocol) {
		return block.Unsupportedf("Protocol '%s' is not supported; an image can be opened from a file only", protocol)
	}
	return block.Unsupportedf("Unknown protocol '%s'", protocol)
}

// parseJSON adds the options in a JSON object.
func parseJSON(options map[string]string, text string) error {
	d := json.NewDecoder(strings.NewReader(doubleQuotes(text)))
	d.UseNumber()
	tree, err := readJSON(d)
	switch {
	case errors.Is(err, io.EOF):
		return block.Invalidf("Could not parse the JSON options: Expecting a JSON value")
	case err != nil:
		return block.Invalidf("Could not parse the JSON options: JSON parse error, %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return block.Invalidf("Could not parse the JSON options: Expecting at most one JSON value")
	}
	object, ok := tree.(map[string]any)
	if !ok {
		return block.Invalidf("Invalid JSON object given")
	}
	flatten(options, "", object)
	return nil
}

// readJSON reads a value, in which no object may have a key twice.
func readJSON(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('['):
		return readJSONList(d)
	case json.Delim('{'):
		return readJSONObject(d)
	}
	return token, nil
}

func readJSONList(d *json.Decoder) (list []any, err error) {
	for d.More() {
		element, err := readJSON(d)
		if err != nil {
			return nil, cutShort(err)
		}
		list = append(list, element)
	}
	_, err = d.Token()
	return list, cutShort(err)
}

func readJSONObject(d *json.Decoder) (map[string]any, error) {
	object := map[string]any{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, cutShort(err)
		}
		key, _ := token.(string)
		if _, twice := object[key]; twice {
			return nil, errors.New("duplicate key")
		}
		if object[key], err = readJSON(d); err != nil {
			return nil, cutShort(err)
		}
	}
	_, err := d.Token()
	return object, cutShort(err)
}

// cutShort is the error of a value that has begun: there was to be more.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("premature EOI")
	}
	return err
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
		case bool:
			into[prefix+key] = map[bool]string{true: "on", false: "off"}[v]
		case nil:
			into[prefix+key] = ""
		default:
			into[prefix+key] = fmt.Sprint(v)
		}
	}
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
