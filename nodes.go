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
	"github.com/diskimg/diskimg/internal/qjson"
	"github.com/diskimg/diskimg/storage/blkdebug"
)

// nodeOptions are the options of a node that have not been looked at yet. Each
// is a string or, from JSON, a qjson.Literal.
type nodeOptions map[string]any

func nodeOptionsOf(options map[string]string) nodeOptions {
	o := make(nodeOptions, len(options))
	for key, value := range options {
		o[key] = value
	}
	return o
}

// text returns the value of an option, empty if it is not given.
func (o nodeOptions) text(key string) string {
	switch value := o[key].(type) {
	case string:
		return value
	case qjson.Literal:
		return cmp.Or(map[qjson.Literal]string{"true": "on", "false": "off"}[value], string(value))
	}
	return ""
}

// name returns the value of an option that is a name: what is no string is not
// looked at.
func (o nodeOptions) name(key string) (name string, given bool) {
	name, given = o[key].(string)
	return name, given
}

func (o nodeOptions) given(key string) bool {
	_, given := o[key]
	return given
}

func (o nodeOptions) take(key string) string {
	value := o.text(key)
	delete(o, key)
	return value
}

// takeName is name, which takes the option.
func (o nodeOptions) takeName(key string) string {
	value, _ := o.name(key)
	delete(o, key)
	return value
}

// texts returns the values of all options.
func (o nodeOptions) texts() map[string]string {
	texts := make(map[string]string, len(o))
	for key := range o {
		texts[key] = o.text(key)
	}
	return texts
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
	return parseNode(nodeOptionsOf(options), "")
}

const (
	copyOnRead  = "copy-on-read"
	compress    = "compress"
	throttled   = "throttle"
	preallocate = "preallocate"
)

// isFilter reports whether a driver changes how another node works.
func isFilter(driver string) bool {
	return slices.Contains([]string{copyOnRead, compress, throttled, preallocate}, driver)
}

// isProtocol reports whether a driver stands for a file and no format.
func isProtocol(driver string) bool {
	return slices.Contains([]string{"file", "host_device", "blkdebug", "blkverify", "null-co", "null-aio", quorumName}, driver)
}

// IsDriver reports whether QEMU has a driver of that name that is no format but
// a protocol or a filter, and this package has it, too.
func IsDriver(name string) bool { return isProtocol(name) || isFilter(name) }

// parseNode reads the options of a node. The name is that of a file and goes
// down the tree to the first node that is one.
func parseNode(o nodeOptions, name string) (Target, error) {
	driver, given := o.name("driver")
	delete(o, "driver")
	switch {
	case given && driver == "":
		_, err := FindFormat(driver)
		return Target{}, err
	case isProtocol(driver):
		return parseProtocol(driver, o, name)
	case isFilter(driver):
		return parseFilter(driver, o, name)
	}
	return parseFormat(driver, o, name)
}

// parseFile reads the options of a child that is a file: without a driver, its
// name says which protocol it is of. What the options have for a filename is
// that of a file, whatever it looks like.
func parseFile(o nodeOptions, name string) (t Target, err error) {
	if driver, given := o.name("driver"); given {
		if slices.Contains(foreignProtocols, driver) {
			return t, refuseProtocol(driver)
		}
		return parseNode(o, name)
	}
	switch _, given := o.name("filename"); {
	case name != "":
		name, err = o.takeProtocol(name)
	case given:
		o["driver"] = "file"
	default:
		err = errNothingNamed
	}
	if err != nil {
		return t, err
	}
	return parseNode(o, name)
}

var errNothingNamed = block.Invalidf("Must specify either driver or file")

// takeProtocol makes a driver of what a name begins with, and returns what is
// left to be a name.
func (o nodeOptions) takeProtocol(name string) (string, error) {
	protocol, rest := cutProtocol(name)
	switch {
	case protocol == "" && strings.HasPrefix(name, ":"):
		return "", refuseProtocol("")
	case protocol == "":
		o["driver"] = "file"
		return name, nil
	case protocol == "json":
		inner, err := parseJSON(rest)
		if err != nil {
			return "", err
		}
		maps.Copy(inner, o)
		maps.Copy(o, inner)
		return "", nil
	case !isProtocol(protocol) || protocol == quorumName:
		return "", refuseProtocol(protocol)
	}
	o["driver"] = protocol
	return name, nil
}

// parseFormat reads the options of an image. Those that are left are for the
// format, which is known when the file has been opened.
func parseFormat(driver string, o nodeOptions, name string) (t Target, err error) {
	t.Format = driver
	t.title = newTitle(driver, o)
	file := o.child("file")
	switch {
	case o.given("file") && file != nil:
		return t, errReferenceAndMore
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
	t.title.over("file", below.title)
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
		t.Settings = o.texts()
	}
	return t, nil
}

var errReferenceAndMore = block.Invalidf("Cannot reference an existing block device with additional options or a new filename")

// standOn makes below the file of t.
func (t *Target) standOn(below Target) {
	t.Path = below.Path
	t.ReadOnly, t.ForceShare = below.ReadOnly, below.ForceShare
	if !isProtocol(below.driver) {
		t.File = &below
		return
	}
	t.File, t.Null, t.Quorum, t.Copy, t.Faults, t.device = below.File, below.Null, below.Quorum, below.Copy, below.Faults, below.device
	t.config, t.keepSpace = below.config, below.keepSpace
}

// missingFile says what is wrong with options that name no file.
func missingFile(driver string, o nodeOptions) error {
	if driver == "" && !o.given("file") {
		return errNothingNamed
	}
	if _, err := FindFormat(driver); driver != "" && err != nil {
		return err
	}
	return missingChild("file", o)
}

// missingChild says what is wrong with options that do not say what a driver is
// to work on.
func missingChild(role string, o nodeOptions) error {
	if name, given := o.name(role); given {
		return block.Invalidf("Cannot find device='%s' nor node-name='%[1]s'", name)
	}
	return block.Invalidf("A block device must be specified for \"%s\"", role)
}

// takeChildren reads what is said of the image below and of the data file.
func (t *Target) takeChildren(o nodeOptions) error {
	if err := t.takeBacking(o); err != nil {
		return err
	}
	data := o.child("data-file")
	if _, refers := o.name("data-file"); refers {
		return missingChild("data-file", o)
	}
	delete(o, "data-file")
	if data == nil {
		return nil
	}
	d, err := parseFile(data, "")
	t.Data = &d
	return err
}

func (t *Target) takeBacking(o nodeOptions) error {
	name, refers := o.name("backing")
	below := o.child("backing")
	switch {
	case refers && below != nil:
		return block.Invalidf("Could not open backing file: %w", errReferenceAndMore)
	case refers && name == "":
		t.NoBacking = true
		delete(o, "backing")
		return nil
	case !refers && below == nil:
		return nil
	case t.Format == rawName || t.Format == "luks":
		return block.Unsupportedf("Driver doesn't support backing files")
	case refers:
		return block.Invalidf("Could not open backing file: %w", missingChild("backing", o))
	}
	b, err := parseBacking(below)
	if err != nil {
		return block.Invalidf("Could not open backing file: %w", err)
	}
	t.Backing = &b
	if b.placed() {
		t.title.over("backing", b.title)
	}
	return nil
}

// parseBacking reads the options of an image below, which may leave it to the
// image above which one that is.
func parseBacking(o nodeOptions) (Target, error) {
	driver, _ := o.name("driver")
	if o.given("file") || o.given("file.filename") || o.given("file.driver") || isProtocol(driver) {
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
	called := newTitle(driver, o)
	file := o.child("file")
	group, err := o.takeFilter(driver)
	switch {
	case err != nil:
		return Target{}, err
	case o.given("file") && file != nil:
		return Target{}, errReferenceAndMore
	case file == nil && name == "":
		return Target{}, missingChild("file", o)
	case file == nil:
		file = nodeOptions{}
	}
	t, err := parseFile(file, name)
	if err != nil {
		return t, err
	}
	called.over("file", t.title)
	if driver == compress {
		below := t
		t = Target{File: &below, Path: below.Path, Format: rawName, Compress: true}
	}
	t.CopyOnRead = driver == copyOnRead
	if driver == throttled {
		t.Throttle = append(slices.Clone(t.Throttle), group)
	}
	t.driver, t.title = driver, called
	if err := t.takeCommon(o); err != nil {
		return t, err
	}
	if key := o.first(); key != "" {
		return t, block.Unsupportedf("Block format '%s' does not support the option '%s'", driver, key)
	}
	return t, nil
}

// takeFilter takes what only some filters have, and returns the name of the
// limits. There is nothing to preallocate for: what is written past the end of a
// file makes it longer, and no more.
func (o nodeOptions) takeFilter(driver string) (group string, err error) {
	switch driver {
	case throttled:
		if !o.given("throttle-group") {
			return "", block.Invalidf("Please specify a throttle group")
		}
		group = o.take("throttle-group")
	case preallocate:
		align, err := o.size("prealloc-align")
		if err == nil && align%512 != 0 {
			err = block.Invalidf("prealloc-align parameter of preallocate filter is not aligned to 512")
		}
		if err != nil {
			return "", err
		}
		_, err = o.size("prealloc-size")
		return "", err
	}
	return group, nil
}

// parseProtocol reads the options of a file.
func parseProtocol(driver string, o nodeOptions, name string) (t Target, err error) {
	called := newTitle(driver, o)
	switch driver {
	case "blkdebug":
		err = t.takeBlkdebug(o, name, &called)
	case "blkverify":
		err = t.takeBlkverify(o, name, &called)
	case "null-co", "null-aio":
		err = t.takeNull(driver, o, name)
		called.setExact(t.Path)
	case quorumName:
		err = t.takeQuorum(o, &called)
	default:
		err = t.takePath(driver, o, name)
		called.full["filename"] = t.Path
		called.setExact(t.Path)
	}
	t.Format, t.driver, t.title = rawName, driver, called
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

// takePath reads the options of a file. A name may say its protocol.
func (t *Target) takePath(driver string, o nodeOptions, name string) error {
	t.device = driver == "host_device"
	t.Path = o.takeName("filename")
	if rest, ok := strings.CutPrefix(name, driver+":"); ok {
		if protocol, _ := cutProtocol(rest); protocol != "" {
			rest = "./" + rest // it looks like that of a protocol, but is a path
		}
		t.Path = rest
	} else if name != "" {
		t.Path = name
	}
	if err := o.oneOf("aio", "threads", "native", "io_uring"); err != nil {
		return err
	}
	if id, given := o.name("pr-manager"); given {
		return block.Invalidf("No persistent reservation manager with id '%s'", id)
	}
	if err := o.number("aio-max-batch"); err != nil {
		return err
	}
	if err := o.oneOf("locking", "auto", "on", "off"); err != nil {
		return err
	}
	return o.switches("drop-cache", "x-check-cache-dropped")
}

// takeBlkdebug reads rules and what they are for. A name is
// blkdebug:CONFIGURATION:IMAGE, or that of an image.
func (t *Target) takeBlkdebug(o nodeOptions, name string, called *title) error {
	config := o.take("config")
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
	if config != "" {
		called.full["config"] = config
	}
	called.over("image", below.title)
	if below.title.exact != "" {
		called.setExact("blkdebug:" + config + ":" + below.title.exact)
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
	rules, rest, err := blkdebug.Parse(text, o.texts())
	if err != nil {
		return err
	}
	limits := map[string]*int64{"align": &rules.Limits.Align, "max-transfer": &rules.Limits.MaxTransfer,
		"opt-write-zero": &rules.Limits.WriteZero, "max-write-zero": &rules.Limits.MaxWriteZero,
		"opt-discard": &rules.Limits.Discard, "max-discard": &rules.Limits.MaxDiscard}
	for _, key := range slices.Sorted(maps.Keys(limits)) {
		if _, given := rest[key]; !given {
			continue
		}
		delete(rest, key)
		if *limits[key], err = o.size(key); err != nil {
			return err
		}
	}
	// A wrapped file that is under rules itself is a file of its own.
	if t.Faults != nil {
		below := *t
		below.Format, below.driver = rawName, "blkdebug"
		*t = Target{Path: t.Path, File: &below}
	}
	maps.DeleteFunc(o, func(key string, _ any) bool { _, left := rest[key]; return !left })
	delete(o, "take-child-perms")
	delete(o, "unshare-child-perms")
	t.Faults = rules
	return rules.Limits.Check()
}

// takeBlkverify reads an image and its raw copy. A name is blkverify:RAW:IMAGE,
// or that of the image.
func (t *Target) takeBlkverify(o nodeOptions, name string, called *title) error {
	rest, pair := strings.CutPrefix(name, "blkverify:")
	rawFile := ""
	if pair {
		if rawFile, name, pair = strings.Cut(rest, ":"); !pair {
			return block.Invalidf("blkverify requires raw copy and original image path")
		}
		pair = name == "" // an image with no name is refused when it is opened
	}
	raw := o.child("raw")
	if raw == nil && rawFile == "" {
		return missingChild("raw", o)
	}
	c, err := parseFile(nonNil(raw), rawFile)
	if err != nil {
		return err
	}
	image := o.child("test")
	if pair {
		image = nodeOptions{"file.filename": ""}
	}
	if image == nil && name == "" {
		return missingChild("test", o)
	}
	i, err := parseNode(nonNil(image), name)
	t.Path, t.File, t.Copy = i.Path, &i, &c
	called.over("raw", c.title)
	called.over("test", i.title)
	if c.title.exact != "" && i.title.exact != "" {
		called.setExact("blkverify:" + c.title.exact + ":" + i.title.exact)
	}
	return err
}

func nonNil(o nodeOptions) nodeOptions {
	if o == nil {
		return nodeOptions{}
	}
	return o
}

func (t *Target) takeNull(driver string, o nodeOptions, given string) (err error) {
	name := driver + "://"
	if given = cmp.Or(given, o.takeName("filename")); given != "" && given != name {
		return block.Invalidf("The only allowed filename for this driver is '%s'", name)
	}
	t.Path, t.Null = name, &Null{Size: defaultNullSize}
	if o.given("size") {
		if t.Null.Size, err = o.size("size"); err != nil {
			return err
		}
	}
	delete(o, "latency-ns")
	return o.switches("read-zeroes")
}

// takeCommon reads what every node can be told.
func (t *Target) takeCommon(o nodeOptions) error {
	readOnly, share := switches[o.text("read-only")], switches[o.text("force-share")]
	if err := o.switches("read-only", "force-share", "auto-read-only", "cache.direct", "cache.no-flush"); err != nil {
		return err
	}
	t.ReadOnly, t.ForceShare = t.ReadOnly || readOnly, t.ForceShare || share
	if name := o.text("node-name"); o.given("node-name") && !nodeName.MatchString(name) {
		return block.Invalidf("Invalid node-name: '%s'", name)
	}
	delete(o, "node-name")
	if err := t.takeDiscard(o); err != nil {
		return err
	}
	return o.oneOf("detect-zeroes", "off", "on", "unmap")
}

func (t *Target) takeDiscard(o nodeOptions) error {
	if !o.given("discard") {
		return nil
	}
	value := o.take("discard")
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
	if !o.given(key) {
		return 0, nil
	}
	digits, err := (&Option{Name: key, Type: Size}).normalize(o.take(key))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(digits, 10, 64)
}

// number takes a number that makes no difference here.
func (o nodeOptions) number(key string) error {
	if !o.given(key) {
		return nil
	}
	_, err := (&Option{Name: key, Type: Number}).normalize(o.take(key))
	return err
}

// switches takes options that are on or off and make no difference here.
func (o nodeOptions) switches(keys ...string) error {
	for _, key := range keys {
		if o.given(key) {
			if _, err := (&Option{Name: key, Type: Switch}).normalize(o.take(key)); err != nil {
				return err
			}
		}
	}
	return nil
}

// oneOf takes an option that has one of some values and makes no difference.
func (o nodeOptions) oneOf(key string, values ...string) error {
	if value := o.text(key); o.given(key) && !slices.Contains(values, value) {
		return block.Invalidf("invalid parameter value: %s", value)
	}
	delete(o, key)
	return nil
}
