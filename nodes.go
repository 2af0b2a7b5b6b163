package diskimg

// This file makes targets of options, which describe a tree of nodes as QEMU's
// block layer has them (QEMU QMP reference, BlockdevOptions). A node has a
// driver: a format, a protocol, which is a file of some kind, or a filter. The
// options of a node's child begin with its role and a dot. Drivers that are not
// known are refused by name.

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/storage/blkdebug"
)

// nodeOptions are the options of a node that have not been looked at yet.
type nodeOptions map[string]string

func (o nodeOptions) take(key string) string {
	value := o[key]
	delete(o, key)
	return value
}

// child takes the options of a child, nil if there are none.
func (o nodeOptions) child(role string) (own nodeOptions) {
	for key, value := range o {
		if name, ok := strings.CutPrefix(key, role+"."); ok {
			if own == nil {
				own = nodeOptions{}
			}
			own[name] = value
			delete(o, key)
		}
	}
	return own
}

// first returns the first key that is left, empty for none.
func (o nodeOptions) first() string {
	if len(o) == 0 {
		return ""
	}
	return slices.Min(slices.Collect(maps.Keys(o)))
}

// TargetFromOptions reads a description by keys such as driver, file.filename,
// offset, size, read-only and force-share.
func TargetFromOptions(options map[string]string) (Target, error) {
	t, err := parseNode(maps.Clone(options), "")
	t.setName(options)
	return t, err
}

const (
	copyOnRead = "copy-on-read"
	compress   = "compress"
)

// isProtocol reports whether a driver stands for a file and no format.
func isProtocol(driver string) bool {
	return slices.Contains([]string{"file", "host_device", "blkdebug", "blkverify", "null-co", "null-aio", quorumName}, driver)
}

// parseNode reads the options of a node. The name is that of a file and goes
// down the tree to the first node that is one.
func parseNode(o nodeOptions, name string) (Target, error) {
	driver := o.take("driver")
	switch {
	case isProtocol(driver):
		if name != "" {
			o["filename"] = name
		}
		return parseProtocol(driver, o)
	case driver == copyOnRead || driver == compress:
		return parseFilter(driver, o, name)
	}
	return parseFormat(driver, o, name)
}

// parseFile reads the options of a child that is a file: without a driver, its
// name says which protocol it is of.
func parseFile(o nodeOptions, name string) (Target, error) {
	if o["driver"] == "" {
		if name != "" && o["filename"] == "" {
			o["filename"] = name
		}
		name = ""
		if err := o.takeProtocol(); err != nil {
			return Target{}, err
		}
	}
	if slices.Contains(foreignProtocols, o["driver"]) {
		return Target{}, refuseProtocol(o["driver"])
	}
	return parseNode(o, name)
}

// takeProtocol makes options of a file name.
func (o nodeOptions) takeProtocol() error {
	protocol, rest := cutProtocol(o["filename"])
	switch protocol {
	case "":
		if strings.HasPrefix(o["filename"], ":") {
			return refuseProtocol("")
		}
		o["driver"] = "file"
		return nil
	case "json":
		inner := map[string]string{}
		if err := parseJSON(inner, rest); err != nil {
			return err
		}
		delete(o, "filename")
		maps.Copy(inner, o)
		maps.Copy(o, inner)
		return nil
	}
	if !isProtocol(protocol) || protocol == quorumName {
		return refuseProtocol(protocol)
	}
	o["driver"] = protocol
	return nil
}

// parseFormat reads the options of an image. Those that are left are for the
// format, which is known when the file has been opened.
func parseFormat(driver string, o nodeOptions, name string) (t Target, err error) {
	t.Format = driver
	file := o.child("file")
	_, refers := o["file"]
	switch {
	case refers && file != nil:
		return t, block.Invalidf("Cannot reference an existing block device with additional options or a new filename")
	case file == nil && name == "":
		return t, missingFile(driver, o)
	case file == nil:
		file = nodeOptions{}
	}
	below, err := parseFile(file, name)
	if err != nil {
		return t, err
	}
	if driver == "" {
		t.Path = below.Path
	}
	t.standOn(below)
	if err := t.takeChildren(o); err != nil {
		return t, err
	}
	if err := t.takeCommon(o); err != nil {
		return t, err
	}
	t.takeEncryption(o)
	if driver == rawName {
		if err := t.takeWindow(o); err != nil {
			return t, err
		}
	}
	if len(o) > 0 {
		t.Settings = o
	}
	return t, nil
}

// standOn makes below the file of t.
func (t *Target) standOn(below Target) {
	t.Path = below.Path
	t.ReadOnly, t.ForceShare = below.ReadOnly, below.ForceShare
	if !isProtocol(below.driver) {
		t.File = &below
		return
	}
	t.File, t.Null, t.Quorum, t.Copy, t.Faults, t.device = below.File, below.Null, below.Quorum, below.Copy, below.Faults, below.device
	t.config, t.inline, t.keepSpace = below.config, below.inline, below.keepSpace
}

// missingFile says what is wrong with options that name no file.
func missingFile(driver string, o nodeOptions) error {
	if driver == "" && o["file"] == "" {
		return block.Invalidf("Must specify either driver or file")
	}
	if _, err := FindFormat(driver); driver != "" && err != nil {
		return err
	}
	return missingChild("file", o)
}

// missingChild says what is wrong with options that do not say what a driver is
// to work on.
func missingChild(role string, o nodeOptions) error {
	if name := o[role]; name != "" {
		return block.Invalidf("Cannot find device='%s' nor node-name='%[1]s'", name)
	}
	return block.Invalidf("A block device must be specified for \"%s\"", role)
}

// takeChildren reads what is said of the image below and of the data file.
func (t *Target) takeChildren(o nodeOptions) error {
	if name, ok := o["backing"]; ok && name == "" {
		t.NoBacking = true
		delete(o, "backing")
	} else if ok {
		return block.Invalidf("Could not open backing file: %w", missingChild("backing", o))
	}
	if below := o.child("backing"); below != nil {
		b, err := parseBacking(below)
		if err != nil {
			return err
		}
		t.Backing = &b
	}
	data := o.child("data-file")
	if data == nil {
		return nil
	}
	d, err := parseFile(data, "")
	t.Data = &d
	return err
}

// parseBacking reads the options of an image below, which may leave it to the
// image above which one that is.
func parseBacking(o nodeOptions) (Target, error) {
	if o["file.filename"] != "" || o["file.driver"] != "" || isProtocol(o["driver"]) {
		return parseNode(o, "")
	}
	t, err := parseNode(o, "-")
	t.Path = ""
	return t, err
}

// placed reports whether it is said where the file is.
func (t *Target) placed() bool {
	return t.Path != "" || t.File != nil || t.Null != nil || t.Quorum != nil
}

// over returns t with the path and the format of u where it has none.
func (t Target) over(u Target) Target {
	if t.placed() {
		return t
	}
	t.Path, t.File, t.Null, t.Quorum = u.Path, u.File, u.Null, u.Quorum
	t.Format = cmp.Or(t.Format, u.Format)
	t.KeySecret = cmp.Or(t.KeySecret, u.KeySecret)
	return t
}

// takeEncryption reads what is said of an encrypted image.
func (t *Target) takeEncryption(o nodeOptions) {
	switch t.Format {
	case "qcow2", "":
		t.KeySecret, t.EncryptFormat = o.take("encrypt.key-secret"), o.take("encrypt.format")
	case "luks":
		t.KeySecret = o.take("key-secret")
	}
}

// parseFilter reads the options of what changes how another image works.
func parseFilter(driver string, o nodeOptions, name string) (Target, error) {
	file := o.child("file")
	switch {
	case file == nil && name == "":
		return Target{}, missingChild("file", o)
	case file == nil:
		file = nodeOptions{}
	}
	t, err := parseFile(file, name)
	if err != nil {
		return t, err
	}
	if driver == compress {
		below := t
		t = Target{File: &below, Path: below.Path, Format: rawName, Compress: true}
	}
	t.CopyOnRead = driver == copyOnRead
	t.driver = driver
	if err := t.takeCommon(o); err != nil {
		return t, err
	}
	if key := o.first(); key != "" {
		return t, block.Unsupportedf("Block format '%s' does not support the option '%s'", driver, key)
	}
	return t, nil
}

// parseProtocol reads the options of a file.
func parseProtocol(driver string, o nodeOptions) (t Target, err error) {
	switch driver {
	case "blkdebug":
		err = t.takeBlkdebug(o)
	case "blkverify":
		err = t.takeBlkverify(o)
	case "null-co", "null-aio":
		err = t.takeNull(driver, o)
	case quorumName:
		err = t.takeQuorum(o)
	default:
		err = t.takePath(driver, o)
	}
	t.Format, t.driver = rawName, driver
	if err == nil {
		err = t.takeCommon(o)
	}
	key := o.first()
	switch {
	case err != nil || key == "":
	case driver == quorumName:
		err = block.Unsupportedf("Block format '%s' does not support the option '%s'", driver, key)
	default:
		err = block.Unsupportedf("Block protocol '%s' doesn't support the option '%s'", driver, key)
	}
	return t, err
}

func (t *Target) takePath(driver string, o nodeOptions) error {
	t.device = driver == "host_device"
	name := o.take("filename")
	if rest, ok := strings.CutPrefix(name, driver+":"); ok {
		if name = rest; strings.Contains(name, ":") && !strings.Contains(name[:strings.Index(name, ":")], "/") {
			name = "./" + name // it looks like that of a protocol, but is a path
		}
	}
	t.Path = name
	if err := o.oneOf("aio", "threads", "native", "io_uring"); err != nil {
		return err
	}
	for _, key := range []string{"pr-manager", "x-check-cache-dropped", "aio-max-batch"} {
		delete(o, key)
	}
	if err := o.oneOf("locking", "auto", "on", "off"); err != nil {
		return err
	}
	return o.switches("drop-cache")
}

// takeBlkdebug reads rules and what they are for. A name is
// blkdebug:CONFIGURATION:IMAGE.
func (t *Target) takeBlkdebug(o nodeOptions) error {
	config, name := o.take("config"), o.take("filename")
	if rest, ok := strings.CutPrefix(name, "blkdebug:"); ok {
		conf, image, ok := strings.Cut(rest, ":")
		if !ok {
			return block.Invalidf("blkdebug requires both config file and image path")
		}
		config, name = cmp.Or(config, conf), image
		if image == "" {
			o["image.filename"] = "" // which is refused when it is opened
		}
	}
	image := o.child("image")
	switch {
	case image == nil && name == "":
		return missingChild("image", o)
	case image == nil:
		image = nodeOptions{}
	}
	below, err := parseFile(image, name)
	if err != nil {
		return err
	}
	t.standOn(below)
	t.config = config
	return t.takeRules(o)
}

// takeRules reads rules from a configuration file, if there is one, and from
// options.
func (t *Target) takeRules(o nodeOptions) error {
	text, err := readConfig(t.config)
	if err != nil {
		return err
	}
	rules, rest, err := blkdebug.Parse(text, o)
	if err != nil {
		return err
	}
	t.inline = len(o) > 0
	limits := map[string]*int64{"align": &rules.Limits.Align, "max-transfer": &rules.Limits.MaxTransfer,
		"opt-write-zero": &rules.Limits.WriteZero, "max-write-zero": &rules.Limits.MaxWriteZero,
		"opt-discard": &rules.Limits.Discard, "max-discard": &rules.Limits.MaxDiscard}
	for _, key := range slices.Sorted(maps.Keys(limits)) {
		if *limits[key], err = nodeOptions(rest).size(key); err != nil {
			return err
		}
	}
	// A wrapped file that is under rules itself is a file of its own.
	if t.Faults != nil {
		below := *t
		below.Format, below.driver = rawName, "blkdebug"
		*t = Target{Path: t.Path, File: &below}
	}
	clear(o)
	maps.Copy(o, rest)
	delete(o, "take-child-perms")
	delete(o, "unshare-child-perms")
	t.Faults = rules
	return rules.Limits.Check()
}

// takeBlkverify reads an image and its raw copy. A name is blkverify:RAW:IMAGE.
func (t *Target) takeBlkverify(o nodeOptions) error {
	if rest, ok := strings.CutPrefix(o["filename"], "blkverify:"); ok {
		raw, image, ok := strings.Cut(rest, ":")
		if !ok {
			return block.Invalidf("blkverify requires raw copy and original image path")
		}
		o["raw.filename"], o["test.file.filename"] = raw, image
		delete(o, "filename")
	}
	raw := o.child("raw")
	if raw == nil {
		return missingChild("raw", o)
	}
	c, err := parseFile(raw, "")
	if err != nil {
		return err
	}
	image := o.child("test")
	if image == nil {
		return missingChild("test", o)
	}
	i, err := parseNode(image, "")
	t.Path, t.File, t.Copy = i.Path, &i, &c
	return err
}

func (t *Target) takeNull(driver string, o nodeOptions) (err error) {
	name := driver + "://"
	if given := o.take("filename"); given != "" && given != name {
		return block.Invalidf("The only allowed filename for this driver is '%s'", name)
	}
	t.Path, t.Null = name, &Null{Size: defaultNullSize}
	if _, given := o["size"]; given {
		if t.Null.Size, err = o.size("size"); err != nil {
			return err
		}
	}
	delete(o, "latency-ns")
	return o.switches("read-zeroes")
}

// takeCommon reads what every node can be told.
func (t *Target) takeCommon(o nodeOptions) error {
	readOnly, share := switches[o["read-only"]], switches[o["force-share"]]
	if err := o.switches("read-only", "force-share", "auto-read-only", "cache.direct", "cache.no-flush"); err != nil {
		return err
	}
	t.ReadOnly, t.ForceShare = t.ReadOnly || readOnly, t.ForceShare || share
	if name, ok := o["node-name"]; ok && !nodeName.MatchString(name) {
		return block.Invalidf("Invalid node-name: '%s'", name)
	}
	delete(o, "node-name")
	if err := t.takeDiscard(o); err != nil {
		return err
	}
	return o.oneOf("detect-zeroes", "off", "on", "unmap")
}

func (t *Target) takeDiscard(o nodeOptions) error {
	value, given := o["discard"]
	if !given {
		return nil
	}
	delete(o, "discard")
	if !slices.Contains([]string{"ignore", "off", "unmap", "on"}, value) {
		return block.Invalidf("Invalid discard option")
	}
	ignore := value == "ignore" || value == "off"
	t.IgnoreDiscards = &ignore
	t.keepSpace = t.keepSpace || isProtocol(t.driver) && ignore
	return nil
}

// ignoresDiscards reports whether what is discarded stays as it is.
func (t *Target) ignoresDiscards(o *OpenOptions) bool {
	if t.IgnoreDiscards != nil {
		return *t.IgnoreDiscards
	}
	return o.IgnoreDiscards
}

// nodeName is what a node can be called (QEMU QMP reference, BlockdevOptions).
var nodeName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,30}$`)

func (t *Target) takeWindow(o nodeOptions) (err error) {
	if t.Offset, err = o.size("offset"); err == nil {
		t.Size, err = o.size("size")
	}
	return err
}

// size takes a number of bytes, 0 if there is none.
func (o nodeOptions) size(key string) (int64, error) {
	value, given := o[key]
	if !given {
		return 0, nil
	}
	delete(o, key)
	digits, err := (&Option{Name: key, Type: Size}).normalize(value)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(digits, 10, 64)
}

// switches takes options that are on or off and make no difference here.
func (o nodeOptions) switches(keys ...string) error {
	for _, key := range keys {
		if value, given := o[key]; given {
			if _, err := (&Option{Name: key, Type: Switch}).normalize(value); err != nil {
				return err
			}
			delete(o, key)
		}
	}
	return nil
}

// oneOf takes an option that has one of some values and makes no difference.
func (o nodeOptions) oneOf(key string, values ...string) error {
	if value, given := o[key]; given && !slices.Contains(values, value) {
		return block.Invalidf("invalid parameter value: %s", value)
	}
	delete(o, key)
	return nil
}
