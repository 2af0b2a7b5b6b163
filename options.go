package diskimg

// This file is the creation options of formats: what there is, as data, and
// values for them, checked as they are set.

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/internal/size"
)

// OptionType says what values an option takes.
type OptionType uint8

const (
	// Text is any string.
	Text OptionType = iota
	// Switch is on or off; yes, no, true, false, y and n are taken as well.
	Switch
	// Size is a number of bytes, with a suffix as in 64k.
	Size
	// Number is a whole number.
	Number
)

// Option is one creation option of a format.
type Option struct {
	Name    string
	Type    OptionType
	Help    string
	Default string // empty: the option is not set unless somebody does
	// File: it is about the file that holds the image, not about the format.
	File bool
	// Ours: QEMU has no such option.
	Ours bool
}

// Settings are values for the creation options of one format.
type Settings struct {
	format  *Format
	options []Option
	values  map[string]string
}

// Settings returns the defaults of the format's creation options.
func (f *Format) Settings() *Settings {
	s := &Settings{format: f, options: f.Options, values: map[string]string{}}
	for _, o := range f.Options {
		if o.Default != "" {
			s.values[o.Name] = o.Default
		}
	}
	return s
}

// Set gives an option a value, in place of any it has. The error matches
// block.ErrInvalid.
func (s *Settings) Set(name, value string) error {
	i := slices.IndexFunc(s.options, func(o Option) bool { return o.Name == name })
	switch {
	case i < 0 && s.creationOnly(name, value):
		return block.Invalidf("Invalid parameter '%s'\nThis option is only supported for image creation", name)
	case i < 0:
		return block.Invalidf("Invalid parameter '%s'", name)
	}
	value, err := s.options[i].normalize(value)
	if err != nil {
		return err
	}
	s.values[name] = value
	return nil
}

// normalize checks a value and returns it as Settings keeps it: numbers in
// decimal digits, all else as it is.
func (o *Option) normalize(value string) (string, error) {
	switch o.Type {
	case Switch:
		if _, ok := switches[value]; !ok {
			return "", block.Invalidf("Parameter '%s' expects 'on' or 'off'", o.Name)
		}
	case Size:
		n, err := size.Parse(value)
		switch {
		case errors.Is(err, size.ErrSyntax):
			return "", block.Invalidf("Parameter '%s' expects a non-negative number below 2^64\n"+
				"Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.", o.Name)
		case err != nil || n > math.MaxInt64:
			return "", block.Invalidf("Value '%s' is out of range for parameter '%s'", value, o.Name)
		}
		return strconv.FormatUint(n, 10), nil
	case Number:
		return o.normalizeNumber(value)
	}
	return value, nil
}

func (o *Option) normalizeNumber(value string) (string, error) {
	digits := strings.TrimLeft(value, " \t\n\v\f\r")
	n, err := strconv.ParseInt(digits, 0, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return "", block.Invalidf("Value '%s' is too large for parameter '%s'", value, o.Name)
	case err != nil || strings.Contains(digits, "_"):
		return "", block.Invalidf("Parameter '%s' expects a number", o.Name)
	}
	return strconv.FormatInt(n, 10), nil
}

var switches = map[string]bool{
	"on": true, "yes": true, "true": true, "y": true, "off": false, "no": false, "false": false, "n": false,
}

// Has reports whether the option is set, if only by default.
func (s *Settings) Has(name string) bool {
	_, ok := s.values[name]
	return ok
}

// Text returns the value of an option, empty if it is not set.
func (s *Settings) Text(name string) string { return s.values[name] }

// Switch returns whether an option is on.
func (s *Settings) Switch(name string) bool { return switches[s.values[name]] }

// Number returns the value of an option of type Number or Size, 0 if it is not
// set.
func (s *Settings) Number(name string) int64 {
	n, _ := strconv.ParseInt(cmp.Or(s.values[name], "0"), 10, 64) // normalize wrote it
	return n
}

// String shows what is set as name=value, in the order of the format's table,
// commas in values doubled.
func (s *Settings) String() string {
	var list []string
	for _, o := range s.options {
		if value, ok := s.values[o.Name]; ok {
			list = append(list, o.Name+"="+strings.ReplaceAll(value, ",", ",,"))
		}
	}
	return strings.Join(list, " ")
}
