package diskimg

// This file is what QEMU calls a node: by a plain name if that says all that
// there is to say, and otherwise by options, as json:{…}.

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/diskimg/diskimg/internal/qjson"
)

// title is what a node is called.
type title struct {
	exact string         // a name that says all; empty if there is none
	full  map[string]any // by options: the driver, the children and what makes a difference
	more  bool           // there is more to say than a plain name can
}

// strong are the options that make another disk of a node, by its driver. Those
// that only say how it is used are in no name.
var strong = map[string]func(key string) bool{
	rawName:    keyIn("offset", "size"),
	"qcow2":    keyIn("encrypt.key-secret"),
	"luks":     keyIn("key-secret"),
	throttled:  keyIn("throttle-group"),
	"vpc":      keyIn("force_size_calc"),
	"null-co":  keyIn("size", "read-zeroes"),
	"null-aio": keyIn("size", "read-zeroes"),
	quorumName: keyIn("vote-threshold", "blkverify", "rewrite-corrupted", "read-pattern"),
	"blkdebug": func(key string) bool {
		return strings.HasPrefix(key, "inject-error.") || strings.HasPrefix(key, "set-state.") ||
			keyIn("config", "align", "max-transfer", "opt-write-zero", "max-write-zero", "opt-discard", "max-discard")(key)
	},
}

func keyIn(keys ...string) func(string) bool {
	return func(key string) bool { return slices.Contains(keys, key) }
}

// newTitle begins the title of a node with its driver, which may not be known
// yet, and its strong options.
func newTitle(driver string, o nodeOptions) title {
	t := title{full: map[string]any{}, more: isFilter(driver)}
	if driver != "" {
		t.full["driver"] = driver
	}
	isStrong := strong[driver]
	for key, value := range o {
		if isStrong != nil && isStrong(key) {
			t.full[key] = value
			t.more = t.more || key != "config"
		}
	}
	return t
}

// over adds a child. An image with nothing more to say is called as its file,
// if that is one.
func (t *title) over(role string, child title) {
	t.full[role] = child.full
	driver, _ := child.full["driver"].(string)
	switch {
	case role == "file" && isProtocol(driver):
		t.setExact(child.exact)
	case role == "backing":
		t.more, t.exact = true, ""
	}
}

// setExact gives a node a plain name, if that says all.
func (t *title) setExact(name string) {
	if !t.more {
		t.exact = name
	}
}

// name returns the title of a node of that driver.
func (t *title) name(driver string) string {
	if t.exact != "" || t.full == nil {
		return t.exact
	}
	full := maps.Clone(t.full)
	if full["driver"] == nil && driver != "" {
		full["driver"] = driver
	}
	var b strings.Builder
	b.WriteString("json:")
	writeTitle(&b, full)
	return b.String()
}

// titleOrder is the order in which QEMU prints options. Those that are not in
// it come last.
var titleOrder = []string{"read-pattern", "children", "set-state.1.event", "inject-error.0.state", "inject-error.1.state", "opt-write-zero",
	"inject-error.0.immediately", "inject-error.1.immediately", "set-state.0.event", "inject-error.0.once", "inject-error.1.once",
	"max-write-zero", "image", "max-transfer", "set-state.1.new_state", "encrypt.key-secret", "offset", "read-zeroes", "test", "force_size_calc", "throttle-group", "backing",
	"driver", "size", "file", "filename", "raw", "blkverify", "rewrite-corrupted", "vote-threshold", "key-secret", "set-state.1.state", "config",
	"inject-error.0.iotype", "inject-error.1.iotype", "set-state.0.new_state", "inject-error.0.errno", "inject-error.0.event",
	"inject-error.1.errno", "inject-error.1.event", "opt-discard", "set-state.0.state", "inject-error.0.sector", "inject-error.1.sector",
	"max-discard", "align"}

func writeTitle(b *strings.Builder, value any) {
	switch v := value.(type) {
	case map[string]any:
		b.WriteByte('{')
		for i, key := range titleKeys(v) {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(qjson.Quote(key) + ": ")
			writeTitle(b, v[key])
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, element := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			writeTitle(b, element)
		}
		b.WriteByte(']')
	case qjson.Literal:
		b.WriteString(string(v))
	case string:
		b.WriteString(qjson.Quote(v))
	}
}

// titleKeys returns the keys of an object in QEMU's order.
func titleKeys(object map[string]any) []string {
	keys := slices.Collect(maps.Keys(object))
	place := func(key string) int {
		if i := slices.Index(titleOrder, key); i >= 0 {
			return i
		}
		return len(titleOrder)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(place(a)-place(b), strings.Compare(a, b)) })
	return keys
}

// Name returns the name of the target in QEMU's syntax: its path where that
// says all that there is to say.
func (t Target) Name() string { return t.nameAs(t.Format) }

// nameAs is Name for an image whose format turned out to be this one.
func (t Target) nameAs(format string) string { return cmp.Or(t.title.name(format), t.Path) }
