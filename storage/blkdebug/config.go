package blkdebug

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/diskimg/diskimg/block"
)

// This file reads rules: from a configuration file, which has a section for
// each, and from options such as inject-error.0.event.

// section is one rule as it was read.
type section struct {
	name   string
	values map[string]string
}

const (
	injectError = "inject-error"
	setState    = "set-state"
)

var settings = map[string][]string{
	injectError: {"event", "state", "iotype", "errno", "sector", "once", "immediately"},
	setState:    {"event", "state", "new_state"},
}

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 1 << 20

// Parse reads the text of a configuration file, which may be empty, and further
// options. It returns the options that are about no rule.
func Parse(config []byte, options map[string]string) (*Rules, map[string]string, error) {
	list, err := parseConfig(config)
	if err != nil {
		return nil, nil, err
	}
	more, rest, err := sectionsOf(options)
	if err != nil {
		return nil, nil, err
	}
	var failures []Error
	var steps []Step
	for _, s := range append(list, more...) {
		event, err := s.event()
		switch {
		case err != nil:
		case s.name == injectError:
			var e Error
			e, err = s.failure(event)
			failures = append(failures, e)
		default:
			var step Step
			step, err = s.step(event)
			steps = append(steps, step)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return New(failures, steps), rest, nil
}

// parseConfig reads sections: a name in brackets, and below it lines that say
// key = "value".
func parseConfig(text []byte) ([]section, error) {
	if len(text) > maxConfig {
		return nil, block.Invalidf("the configuration of blkdebug has %d bytes, the limit is %d", len(text), maxConfig)
	}
	var list []section
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxConfig+1)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			name, _, _ := strings.Cut(line[1:], "]")
			name, _, _ = strings.Cut(name, " ") // the rest is a name for this rule
			if settings[name] == nil {
				return nil, block.Invalidf("There is no option group '%s'", name)
			}
			list = append(list, section{name, map[string]string{}})
		case len(list) == 0:
			return nil, block.Invalidf("no group defined")
		default:
			if err := list[len(list)-1].add(line); err != nil {
				return nil, err
			}
		}
	}
	return list, lines.Err()
}

// add reads a line of a section. What is not in quotes is no value.
func (s section) add(line string) error {
	key := strings.Fields(line)[0]
	if !slices.Contains(settings[s.name], key) {
		return block.Invalidf("Invalid parameter '%s'", key)
	}
	value := strings.TrimSpace(strings.TrimPrefix(line, key))
	value, equals := strings.CutPrefix(value, "=")
	value, quoted := strings.CutPrefix(strings.TrimSpace(value), `"`)
	if !equals || !quoted {
		value = ""
	}
	s.values[key], _, _ = strings.Cut(value, `"`)
	return nil
}

// sectionsOf takes the rules out of options: NAME.NUMBER.KEY, with numbers from
// 0 on, or NAME.KEY for one alone.
func sectionsOf(options map[string]string) (list []section, rest map[string]string, err error) {
	rest = maps.Clone(options)
	for _, name := range []string{injectError, setState} {
		if s := take(rest, name, name+"."); s.values != nil {
			list = append(list, s)
		}
		for i := 0; ; i++ {
			s := take(rest, name, fmt.Sprintf("%s.%d.", name, i))
			if s.values == nil {
				break
			}
			list = append(list, s)
		}
		if err := leftOver(rest, name); err != nil {
			return nil, nil, err
		}
	}
	for _, s := range list {
		for _, key := range slices.Sorted(maps.Keys(s.values)) {
			if !slices.Contains(settings[s.name], key) {
				return nil, nil, block.Invalidf("[%s] section doesn't support the option '%s'", s.name, key)
			}
		}
	}
	return list, rest, nil
}

// take moves the options that begin with prefix, and have no dot behind it, out
// of options.
func take(options map[string]string, name, prefix string) section {
	s := section{name: name}
	for key, value := range options {
		setting, ok := strings.CutPrefix(key, prefix)
		if !ok || strings.Contains(setting, ".") {
			continue
		}
		if s.values == nil {
			s.values = map[string]string{}
		}
		s.values[setting] = value
		delete(options, key)
	}
	return s
}

func leftOver(options map[string]string, name string) error {
	for _, key := range slices.Sorted(maps.Keys(options)) {
		if setting, ok := strings.CutPrefix(key, name+"."); ok {
			return block.Invalidf("Unused option '%s' for [%s]", setting, name)
		}
	}
	return nil
}

func (s section) event() (block.Event, error) {
	event, given := s.values["event"]
	switch {
	case !given:
		return "", block.Invalidf("Missing event name for rule")
	case !block.Event(event).Known():
		return "", block.Invalidf("invalid parameter value: %s", event)
	}
	return block.Event(event), nil
}

func (s section) failure(event block.Event) (e Error, err error) {
	e.Event = event
	numbers := map[string]int64{"errno": int64(syscall.EIO), "sector": -1, "state": 0}
	if err := s.numbers(numbers); err != nil {
		return e, err
	}
	e.Errno, e.State = syscall.Errno(numbers["errno"]), int(numbers["state"])
	if sector := numbers["sector"]; sector >= 0 {
		e.Sector = &sector
	}
	if e.Once, err = s.flag("once"); err != nil {
		return e, err
	}
	if _, err := s.flag("immediately"); err != nil {
		return e, err
	}
	e.Kinds, err = s.kinds()
	return e, err
}

func (s section) step(event block.Event) (Step, error) {
	numbers := map[string]int64{"state": 0, "new_state": 0}
	err := s.numbers(numbers)
	return Step{Event: event, State: int(numbers["state"]), Next: int(numbers["new_state"])}, err
}

// numbers replaces the values that are given.
func (s section) numbers(into map[string]int64) (err error) {
	for _, key := range slices.Sorted(maps.Keys(into)) {
		if text, ok := s.values[key]; ok {
			if into[key], err = strconv.ParseInt(text, 0, 32); err != nil {
				return block.Invalidf("Parameter '%s' expects a number", key)
			}
		}
	}
	return nil
}

func (s section) flag(key string) (bool, error) {
	switch value, given := s.values[key]; {
	case !given || slices.Contains([]string{"off", "no", "false", "n"}, value):
		return false, nil
	case slices.Contains([]string{"on", "yes", "true", "y"}, value):
		return true, nil
	}
	return false, block.Invalidf("Parameter '%s' expects 'on' or 'off'", key)
}

func (s section) kinds() (Kind, error) {
	value, given := s.values["iotype"]
	if !given {
		return 0, nil
	}
	k, ok := map[string]Kind{"read": Read, "write": Write, "write-zeroes": WriteZeroes, "discard": Discard, "flush": Flush,
		"block-status": BlockStatus}[value]
	if !ok {
		return 0, block.Invalidf("invalid parameter value: %s", value)
	}
	return k, nil
}
