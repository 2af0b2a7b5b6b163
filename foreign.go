package diskimg

// This file knows images of formats that this module can't open by what they
// begin with. To take one for a raw disk would be to take its headers for the
// guest's bytes; and a guest that writes itself such a header has another
// program open whatever file it names.

import (
	"bytes"
	"strings"
)

// foreignHeads are what images of such formats begin with, by their offset.
var foreignHeads = []struct {
	format string
	at     int
	magic  string
}{
	{"vmdk", 0, "KDMV"}, // VMware, "Virtual Disk Format", hosted sparse extent header
	{"vmdk", 0, "COWD"}, // … ESXi host sparse extent header
	{"vdi", 64, "\x7f\x10\xda\xbe"},
	{"vhdx", 0, "vhdxfile"}, // MS-VHDX, File Type Identifier
	{"qcow", 0, "QFI\xfb\x00\x00\x00\x01"},
	{"parallels", 0, "WithoutFreeSpace\x02\x00\x00\x00"}, // docs/interop/parallels.txt, Image File Header
	{"parallels", 0, "WithouFreSpacExt\x02\x00\x00\x00"},
	{"bochs", 0, "Bochs Virtual HD Image"},
	{"cloop", 0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop"},
}

// probeForeign returns the format of those that a file with this beginning is
// of, "" for none.
func probeForeign(head []byte) string {
	for _, f := range foreignHeads {
		if len(head) > f.at && bytes.HasPrefix(head[f.at:], []byte(f.magic)) {
			return f.format
		}
	}
	if isVMDKDescriptor(head) {
		return "vmdk"
	}
	return ""
}

// isVMDKDescriptor reports whether a file begins with a version that the text
// of a VMDK has, behind comments and blank lines: "The Disk Descriptor File".
func isVMDKDescriptor(head []byte) bool {
	for {
		line, rest, ended := bytes.Cut(head, []byte("\n"))
		if !ended {
			return false
		}
		text := strings.TrimSuffix(string(line), "\r")
		if text == "version=1" || text == "version=2" || text == "version=3" {
			return true
		}
		if !strings.HasPrefix(text, "#") && (text == "" || strings.Trim(text, " ") != "") {
			return false
		}
		head = rest
	}
}
