package cli

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/diskimg/diskimg"
	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/qjson"
	"github.com/diskimg/diskimg/internal/throttle"
)

// This file is --object: what is defined for a command besides its images.

// objects are the QEMU objects that are defined for a command.
type objects struct {
	secrets map[string][]byte
	groups  map[string]*throttle.Group
}

func (o *objects) option() option {
	return option{long: "object", arg: "OBJECT", help: "define a QEMU object: secret,id=ID,file=FILE (or data=TEXT)\nholds the passphrase of an encrypted image", set: o.define}
}

func (o *objects) wipe() {
	for _, value := range o.secrets {
		clear(value)
	}
}

// passphrase finds the secret for an image.
func (o *objects) passphrase(r diskimg.KeyRequest) ([]byte, error) {
	if r.Secret == "" {
		return nil, block.Errorf(block.ErrPassphrase, "Parameter '%s' is required for cipher", keyOption(r.Format))
	}
	return o.copyOf(r.Secret)
}

// keyOption names the option for the passphrase of an image.
func keyOption(format string) string {
	if format == "qcow2" {
		return "encrypt.key-secret"
	}
	return "key-secret"
}

// copyOf returns a copy of a secret.
func (o *objects) copyOf(id string) ([]byte, error) {
	value, err := o.find(id)
	return slices.Clone(value), err
}

func (o *objects) find(id string) ([]byte, error) {
	value, ok := o.secrets[id]
	if !ok {
		return nil, block.Errorf(block.ErrPassphrase, "No secret with id '%s'", id)
	}
	return value, nil
}

// throttleGroup finds the limits that an image names.
func (o *objects) throttleGroup(id string) (*throttle.Group, error) {
	g, ok := o.groups[id]
	if !ok {
		return nil, block.Invalidf("Throttle group '%s' does not exist", id)
	}
	return g, nil
}

// printed is what is printed in place of running a command.
type printed string

func (p printed) Error() string { return string(p) }

// The objects that there are, and what --object TYPE,help says of each.
const (
	secretName   = "secret"
	throttleName = "throttle-group"
)

var objectHelp = map[string]string{
	secretName: "  data=<string>\n  file=<string>\n  format=<QCryptoSecretFormat>\n  iv=<string>\n  keyid=<string>\n",
	throttleName: "  limits=<ThrottleLimits>\n" +
		"  x-bps-read-max-length=<int>\n  x-bps-read-max=<int>\n  x-bps-read=<int>\n" +
		"  x-bps-total-max-length=<int>\n  x-bps-total-max=<int>\n  x-bps-total=<int>\n" +
		"  x-bps-write-max-length=<int>\n  x-bps-write-max=<int>\n  x-bps-write=<int>\n" +
		"  x-iops-read-max-length=<int>\n  x-iops-read-max=<int>\n  x-iops-read=<int>\n  x-iops-size=<int>\n" +
		"  x-iops-total-max-length=<int>\n  x-iops-total-max=<int>\n  x-iops-total=<int>\n" +
		"  x-iops-write-max-length=<int>\n  x-iops-write-max=<int>\n  x-iops-write=<int>\n",
}

// define reads the argument of one --object.
func (o *objects) define(arg string) error {
	d, err := parseObject(arg)
	if err != nil {
		return err
	}
	kind, given, err := d.text("qom-type")
	switch {
	case err != nil:
		return err
	case d.help && objectHelp[kind] != "":
		return printed(kind + " options:\n" + objectHelp[kind])
	case d.help || kind == "help" || kind == "?":
		return printed("List of user creatable objects:\n  " + secretName + "\n  " + throttleName + "\n")
	case !given:
		return failf("Parameter 'qom-type' is missing")
	case objectHelp[kind] == "":
		return failf("Parameter 'qom-type' does not accept value '%s'", kind)
	}
	id, err := d.id()
	if err != nil {
		return err
	}
	if _, twice := o.secrets[id]; twice || o.groups[id] != nil {
		return failf("attempt to add duplicate property '%s' to object (type 'container')", id)
	}
	if kind == throttleName {
		return o.defineGroup(id, d)
	}
	return o.defineSecret(id, d)
}

// bare is a value from TYPE,KEY=VALUE, which may stand for what is no string.
type bare string

// definition is the properties of an object that have not been looked at yet:
// each is bare or, from JSON, as qjson has it.
type definition struct {
	properties map[string]any
	help       bool // is asked for
}

// parseObject reads an object in either form: type,key=value or JSON.
func parseObject(arg string) (d definition, err error) {
	d.properties = map[string]any{}
	if strings.HasPrefix(arg, "{") {
		tree, err := qjson.Parse(arg)
		if err != nil {
			return d, failf("%s", withoutQuote(err))
		}
		d.properties, _ = tree.(map[string]any)
		return d, nil
	}
	first, _, _ := strings.Cut(arg, ",")
	if first != "" && !strings.Contains(first, "=") {
		d.properties["qom-type"] = bare(first)
		arg = strings.TrimPrefix(arg[len(first):], ",")
	}
	for _, p := range splitOptions(arg) {
		switch {
		case p.bare && (p.key == "help" || p.key == "?"):
			d.help = true
		case !wellFormedKey(p.key):
			return d, failf("Invalid parameter '%s'", p.key)
		case p.bare:
			return d, failf("Expected '=' after parameter '%s'", p.key)
		}
		d.properties[p.key] = bare(p.value)
	}
	if d.help {
		delete(d.properties, "help")
	}
	return d, nil
}

// withoutQuote words an error of an object that may hold a passphrase.
func withoutQuote(err error) string {
	text := err.Error()
	for _, before := range []string{"JSON parse error, stray '", "JSON parse error, invalid keyword '"} {
		if strings.HasPrefix(text, before) {
			return before + "…'"
		}
	}
	return text
}

// wellFormedKey reports whether a key is of names that are joined by dots.
func wellFormedKey(key string) bool {
	return !slices.ContainsFunc(strings.Split(key, "."), func(name string) bool {
		plain := strings.Map(func(r rune) rune {
			if r == '-' || '0' <= r && r <= '9' || r == '_' || 'a' <= r|0x20 && r|0x20 <= 'z' {
				return -1
			}
			return r
		}, name)
		return name == "" || plain != "" || key == name && '0' <= name[0] && name[0] <= '9'
	})
}

func (d *definition) take(key string) (value any, given bool) {
	value, given = d.properties[key]
	delete(d.properties, key)
	return value, given
}

// text takes a string.
func (d *definition) text(key string) (value string, given bool, err error) {
	v, given := d.take(key)
	switch v := v.(type) {
	case string:
		return v, true, nil
	case bare:
		return string(v), true, nil
	}
	if given {
		err = failf("Invalid parameter type for '%s', expected: string", key)
	}
	return "", given, err
}

// flag takes a property that is on or off.
func (d *definition) flag(key string) (given bool, err error) {
	v, given := d.take(key)
	text, isBare := v.(bare)
	switch {
	case isBare && !slices.Contains([]bare{"on", "yes", "true", "y", "off", "no", "false", "n"}, text):
		err = failf("Parameter '%s' expects 'on' or 'off'", key)
	case given && !isBare && v != qjson.Literal("true") && v != qjson.Literal("false"):
		err = failf("Invalid parameter type for '%s', expected: boolean", key)
	}
	return given, err
}

// number takes a whole number.
func (d *definition) number(key string) (n int64, given bool, err error) {
	v, given := d.take(key)
	switch v := v.(type) {
	case bare:
		if n, err = strconv.ParseInt(string(v), 0, 64); err != nil {
			err = failf("Parameter '%s' expects integer", key)
		}
		return n, true, err
	case qjson.Literal:
		if n, err = strconv.ParseInt(string(v), 10, 64); err == nil {
			return n, true, nil
		}
	}
	if given {
		err = failf("Invalid parameter type for '%s', expected: integer", key)
	}
	return 0, given, err
}

func (d *definition) id() (string, error) {
	id, given, err := d.text("id")
	switch {
	case err != nil:
		return "", err
	case !given:
		return "", failf("Parameter 'id' is missing")
	case !wellFormedID(id):
		return "", failf("Parameter 'id' expects an identifier\nIdentifiers consist of letters, digits, '-', '.', '_', starting with a letter.")
	}
	return id, nil
}

// rest refuses properties that nobody has taken.
func (d *definition) rest() error {
	for _, key := range slices.Sorted(maps.Keys(d.properties)) {
		return failf("Parameter '%s' is unexpected", key)
	}
	return nil
}

// defineGroup reads the limits of a group, which are properties of an object of
// their own or, with x- before them, of the group.
func (o *objects) defineGroup(id string, d definition) error {
	if nested, given := d.properties["limits"]; given {
		object, ok := nested.(map[string]any)
		if !ok {
			return failf("Invalid parameter type for 'limits', expected: object")
		}
		delete(d.properties, "limits")
		for key, value := range object {
			d.properties["limits."+key] = value
		}
	}
	var l throttle.Limits
	for _, prefix := range []string{"limits.", "x-"} {
		if err := d.readLimits(prefix, &l); err != nil {
			return err
		}
	}
	if err := d.rest(); err != nil {
		return err
	}
	if err := l.Check(); err != nil {
		return err
	}
	if o.groups == nil {
		o.groups = map[string]*throttle.Group{}
	}
	o.groups[id] = throttle.New(l)
	return nil
}

func (d *definition) readLimits(prefix string, l *throttle.Limits) error {
	values := map[string]*int64{"iops-size": &l.OpSize}
	for name, limit := range map[string]*throttle.Limit{"bps-total": &l.Bytes, "bps-read": &l.ReadBytes, "bps-write": &l.WriteBytes,
		"iops-total": &l.Ops, "iops-read": &l.ReadOps, "iops-write": &l.WriteOps} {
		values[name], values[name+"-max"], values[name+"-max-length"] = &limit.Average, &limit.Burst, &limit.Seconds
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		n, given, err := d.number(prefix + name)
		switch {
		case err != nil:
			return err
		case given && n < 0 && prefix == "x-":
			return failf("Property values cannot be negative")
		case given && n == 0 && strings.HasSuffix(name, "-length"):
			return failf("the burst length cannot be 0")
		case given:
			*values[name] = n
		}
	}
	return nil
}
