package diskimg

// This file reads image names in QEMU's syntax: plain paths, names that begin
// with a protocol, and json:{…}. What they come to are options, see nodes.go.

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qjson"
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
	// Throttle names the limits that reads and writes of the file keep to, see
	// OpenOptions.ThrottleGroup.
	Throttle []string
	// Settings are further options for the format, by QEMU's names: see
	// Format.Runtime.
	Settings map[string]string

	keepSpace bool   // the file gives no space back to the file system
	driver    string // what QEMU calls it, if it is no format
	device    bool   // the path is a device
	config    string // the file that Faults were read from
	title     title  // see Name
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
	all := nodeOptions{}
	text, isJSON := strings.CutPrefix(name, "json:")
	if isJSON {
		var err error
		if all, err = parseJSON(text); err != nil {
			return Target{}, err
		}
		name = ""
	}
	if name == "" && !isJSON && options == nil {
		return Target{}, nil
	}
	maps.Copy(all, nodeOptionsOf(options))
	return parseNode(all, name)
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

// parseJSON returns the options in a JSON object.
func parseJSON(text string) (nodeOptions, error) {
	tree, err := qjson.Parse(text)
	if err != nil {
		return nil, block.Invalidf("Could not parse the JSON options: %w", err)
	}
	object, ok := tree.(map[string]any)
	if !ok {
		return nil, block.Invalidf("Invalid JSON object given")
	}
	options := nodeOptions{}
	options.flatten("", object)
	return options, nil
}

// flatten turns nested objects into keys joined with dots; the elements of a
// list are numbered. What is null is not given, but no backing file is one that
// is empty.
func (o nodeOptions) flatten(prefix string, object map[string]any) {
	for key, value := range object {
		switch v := value.(type) {
		case map[string]any:
			o.flatten(prefix+key+".", v)
			if len(v) == 0 {
				o[prefix+key] = "{}"
			}
		case []any:
			for i, element := range v {
				o.flatten(prefix, map[string]any{fmt.Sprint(key, ".", i): element})
			}
			if len(v) == 0 {
				o[prefix+key] = "[]"
			}
		case nil:
			if key == "backing" {
				o[prefix+key] = ""
			}
		default:
			o[prefix+key] = v
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
