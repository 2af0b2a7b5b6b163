package diskimg

// This file makes images. All that can be known to be wrong is refused before
// anything is written, and an image appears under its name when it is complete.

import (
	"cmp"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/sentence"
	"github.com/diskimg/diskimg/storage"
)

// CreateOptions say what image to make.
type CreateOptions struct {
	Format string // empty: raw
	Size   int64  // bytes; 0 with a backing file: the size of that
	// BackingFile is the image below, by a path relative to the new image, and
	// BackingFormat its format.
	BackingFile, BackingFormat string
	// Options are further creation options by the names and with the values
	// that Format.Options has.
	Options map[string]string
	PlanOptions
}

// Create makes an image at path, in place of a file that may be there.
func Create(path string, o *CreateOptions) error {
	if o == nil {
		o = &CreateOptions{}
	}
	s, err := o.settings()
	if err != nil {
		return createError(path, o.Format, err)
	}
	p, err := s.Plan(path, &o.PlanOptions)
	if err != nil {
		return err
	}
	return p.Create()
}

func (o *CreateOptions) settings() (*Settings, error) {
	f, err := findFormat(o.formats(), cmp.Or(o.Format, rawName))
	if err != nil {
		return nil, err
	}
	s := f.Settings()
	for _, name := range slices.Sorted(maps.Keys(o.Options)) {
		if err := s.Set(name, o.Options[name]); err != nil {
			return nil, err
		}
	}
	for name, value := range map[string]string{"backing_file": o.BackingFile, "backing_fmt": o.BackingFormat} {
		if value == "" {
			continue
		}
		if err := s.Set(name, value); err != nil {
			return nil, err
		}
	}
	if o.Size != 0 || !s.Has("backing_file") {
		return s, s.Set("size", strconv.FormatInt(o.Size, 10))
	}
	return s, nil
}

// PlanOptions say how an image is to be made.
type PlanOptions struct {
	// Policy is asked for what the backing file refers to; nil is Strict{}.
	// The backing file itself is the caller's to choose.
	Policy block.Policy
	// Unchecked leaves the backing file closed, so that its size and format
	// must be given.
	Unchecked bool
	// NoSync waits for nothing to be on disk.
	NoSync bool
	// Passphrase is asked for that of the new image, if it is to be encrypted,
	// and for those of the images below it.
	Passphrase Passphrase
	// Formats to know of; nil is the package's table.
	Formats []Format
}

func (o *PlanOptions) formats() []Format {
	if o.Formats == nil {
		return Formats
	}
	return o.Formats
}

// Plan is an image about to be made. Nothing has been written yet.
type Plan struct {
	Path     string
	Settings *Settings
	o        PlanOptions
}

// Plan checks the settings for a new image at path and completes them: the
// size, where it is not set, is that of the backing file.
func (s *Settings) Plan(path string, o *PlanOptions) (*Plan, error) {
	p := &Plan{Path: path, Settings: s}
	if o != nil {
		p.o = *o
	}
	if p.o.Policy == nil {
		p.o.Policy = Strict{}
	}
	if err := p.check(); err != nil {
		return nil, createError(path, s.format.Name, err)
	}
	return p, nil
}

func (p *Plan) check() error {
	s := p.Settings
	if s.format.Create == nil {
		return block.Unsupportedf("Format driver '%s' does not support image creation", s.format.Name)
	}
	if s.Has("backing_file") {
		if err := p.checkBacking(); err != nil {
			return err
		}
	}
	if !s.Has("size") {
		return block.Invalidf("Image creation needs a size parameter")
	}
	return p.checkData()
}

// passphrase asks for that of the new image.
func (p *Plan) passphrase() func() ([]byte, error) {
	s := p.Settings
	return p.o.Passphrase.of(p.Path, s.format.Name, cmp.Or(s.Text("encrypt.key-secret"), s.Text("key-secret")))
}

// dataPath is where the data file is made: where the policy will look for it.
// name is what the image calls it.
func (p *Plan) dataPath() (path, name string, err error) {
	name = p.Settings.Text("data_file")
	if _, ok := p.o.Policy.(Permissive); !ok {
		return BackingPath(p.Path, name), name, nil
	}
	if strings.HasPrefix(name, "json:") {
		return "", "", refuseProtocol("json")
	}
	t, err := ParseTarget(name)
	if err != nil {
		return "", "", err
	}
	if protocol, _ := cutProtocol(t.Path); protocol != "" {
		return t.Path, "./" + t.Path, nil
	}
	return t.Path, t.Path, nil
}

// checkData refuses the image as its own data file.
func (p *Plan) checkData() error {
	path, name, err := p.dataPath()
	if err == nil && name != "" && filepath.Clean(path) == filepath.Clean(p.Path) {
		return block.Invalidf("the data file %q has to be another file than the image", name)
	}
	return nil // what else is wrong is said when it is made
}

func (p *Plan) checkBacking() error {
	s := p.Settings
	name, format := s.Text("backing_file"), s.Text("backing_fmt")
	switch {
	case name == "":
		return block.Invalidf("Expected backing file name, got empty string")
	case name == p.Path:
		return block.Invalidf("Error: Trying to create an image with the same filename as the backing file")
	case !p.o.Unchecked && format == "" && s.Has("backing_fmt"):
		return block.Errorf(ErrUnknownFormat, "Unknown driver ''\nCould not open backing image.")
	case p.o.Unchecked && !s.Has("backing_fmt"):
		return block.Invalidf("Backing file specified without backing format")
	case p.o.Unchecked:
		return nil
	}
	img, err := p.openBacking(name, format)
	if err != nil {
		return &sentence.Error{Text: sentence.Of(err) + "\nCould not open backing image.", Err: err}
	}
	defer img.Close()
	if format == "" {
		return block.Invalidf("Backing file specified without backing format\nDetected format of %s.", img.Format())
	}
	if !s.Has("size") {
		return s.Set("size", strconv.FormatInt(img.Size(), 10))
	}
	return nil
}

// checkBackingFormat refuses a format that no program could know.
func (p *Plan) checkBackingFormat() error {
	name := p.Settings.Text("backing_fmt")
	if _, err := findFormat(p.o.formats(), name); !p.Settings.Has("backing_fmt") || err == nil || slices.Contains(foreignFormats, name) {
		return nil
	}
	return block.Invalidf("Parameter 'backing-fmt' does not accept value '%s'", name)
}

func (p *Plan) openBacking(name, format string) (*Image, error) {
	t, err := ParseTarget(BackingPath(p.Path, name))
	if err != nil {
		return nil, err
	}
	return t.Open(&OpenOptions{Format: format, Policy: p.o.Policy, NoIO: true, ForceShare: true, Formats: p.o.Formats})
}

// createError says that err happened when path was to be made.
func createError(path, format string, err error) error {
	if e, ok := err.(*block.Error); ok {
		err = e.Err
	}
	return &block.Error{Op: "create", Path: path, Format: format, Offset: -1, Err: err}
}

// Create makes the image.
func (p *Plan) Create() error {
	o, err := p.begin()
	if err != nil {
		return err
	}
	defer o.Discard()
	return o.Commit()
}

// Begin makes the image and opens it for writing, under no name yet. The
// caller calls Discard or Commit.
func (p *Plan) Begin() (*Output, error) {
	o, err := p.begin()
	if err != nil {
		return nil, err
	}
	if err := o.open(); err != nil {
		o.Discard()
		return nil, openError(p.Path, err)
	}
	return o, nil
}

func (p *Plan) begin() (*Output, error) {
	o := &Output{plan: p}
	err := p.checkBackingFormat()
	if err == nil {
		err = o.create()
	}
	if err != nil {
		o.Discard()
		return nil, createError(p.Path, p.Settings.format.Name, err)
	}
	return o, nil
}

// Output is an image on its way to its name. It is for one goroutine, the
// image in it for many.
type Output struct {
	// Image is what is being written, nil after Plan.Create.
	Image *Image

	plan *Plan
	file *storage.Pending
	data *storage.Pending // nil if there is no external data file
}

// create makes the files and the empty image in them.
func (o *Output) create() (err error) {
	if o.file, err = newPending(o.plan.Path); err != nil {
		return err
	}
	if o.plan.Settings.Switch("nocow") {
		if err := o.file.File().NoCopyOnWrite(); err != nil {
			return err
		}
	}
	f := FormatOptions{Path: o.plan.Path, NoSync: o.plan.o.NoSync, Passphrase: o.plan.passphrase()}
	if o.plan.Settings.Has("data_file") {
		path, name, err := o.plan.dataPath()
		if err != nil {
			return err
		}
		if o.data, err = newPending(path); err != nil {
			return err
		}
		f.Data, f.DataName = o.data.File(), name
	}
	return o.plan.Settings.format.Create(o.file.File(), o.plan.Settings, f)
}

func newPending(path string) (*storage.Pending, error) {
	p, err := storage.NewPending(path)
	var locked *storage.LockError
	if err == nil || errors.As(err, &locked) {
		return p, fileError(path, err)
	}
	why := sentence.Of(err)
	if errors.Is(err, storage.ErrNotRegular) {
		why = notAFile(path, why)
	}
	return nil, &sentence.Error{Text: "Could not create '" + path + "': " + why, Err: err}
}

// notAFile words why a path can't be that of a file.
func notAFile(path, why string) string {
	switch {
	case path == "":
		return "No such file or directory"
	case os.IsPathSeparator(path[len(path)-1]):
		return "Is a directory"
	}
	return strings.ToUpper(why[:1]) + why[1:]
}

// open opens the image that create has made.
func (o *Output) open() (err error) {
	p := o.plan
	f := FormatOptions{Path: p.Path, Writable: true, NoSync: p.o.NoSync, Policy: p.o.Policy, Passphrase: p.passphrase()}
	if o.data != nil {
		f.Data = o.data.File()
	}
	if r, ok := p.o.Policy.(rules); ok {
		c := &chain{rules: r, formats: p.o.formats(), passphrase: p.o.Passphrase}
		f.Policy = c.below(o.file.File(), Target{})
	}
	o.Image, err = p.Settings.format.Open(o.file.File(), f)
	return err
}

// ReadsZero reports whether the new image reads as zero, but for what lies
// below it: only an encrypted disk and a raw image on a device do not.
func (o *Output) ReadsZero() bool {
	if o.plan.Settings.format.Name == "luks" {
		return false
	}
	return o.plan.Settings.format.Name != rawName || !o.file.File().Device()
}

// Commit closes the image and gives it its name. After an error it has not got
// it, and what had the name before is still there.
func (o *Output) Commit() error {
	err := o.close()
	if err == nil && o.data != nil {
		err = o.data.Commit(!o.plan.o.NoSync)
	}
	if err == nil {
		err = o.file.Commit(!o.plan.o.NoSync)
	}
	if err != nil {
		return createError(o.plan.Path, o.plan.Settings.format.Name, err)
	}
	return nil
}

// close closes the image, or the files if it is not open.
func (o *Output) close() error {
	if o.Image != nil {
		return o.Image.Close()
	}
	if o.data != nil {
		if err := o.data.File().Close(); err != nil {
			return err
		}
	}
	return o.file.File().Close()
}

// Discard closes the image and removes it. After Commit it does nothing, so
// that it can be deferred.
func (o *Output) Discard() {
	if o.Image != nil {
		o.Image.Close() // what it could not write is gone anyway
	}
	if o.data != nil {
		o.data.Discard()
	}
	if o.file != nil {
		o.file.Discard()
	}
}
