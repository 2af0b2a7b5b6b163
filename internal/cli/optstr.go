package cli

import (
	"slices"
	"strings"
)

// This file reads option strings, the "a=b,c=d" of -o and --image-opts: pairs
// are separated by commas, a comma within a value is doubled, a name alone
// means on and one with "no" in front of it off.

// pair is one key=value of an option string.
type pair struct {
	key, value string
	// bare says that the value was not given but follows from the key alone.
	bare bool
}

// optionList collects the strings of several -o.
type optionList struct {
	text string
}

// add takes the argument of one -o. Joined to the others it must still read
// as the same list.
func (l *optionList) add(s string) error {
	if s == "" || s[0] == ',' || trailingCommas(s)%2 == 1 {
		return failf("Invalid option list: %s", s)
	}
	if l.text != "" {
		l.text += ","
	}
	l.text += s
	return nil
}

func trailingCommas(s string) int { return len(s) - len(strings.TrimRight(s, ",")) }

// wantsHelp reports whether the user asks what options there are.
func (l *optionList) wantsHelp() bool {
	return slices.ContainsFunc(l.pairs(), func(p pair) bool {
		return p.bare && (p.key == "help" || p.key == "?")
	})
}

func (l *optionList) pairs() []pair { return splitOptions(l.text) }

// splitOptions splits an option string into its pairs.
func splitOptions(s string) []pair {
	var list []pair
	for s != "" {
		var p pair
		if end := strings.IndexAny(s, "=,"); end >= 0 && s[end] == '=' {
			p.key = s[:end]
			p.value, s = cutValue(s[end+1:])
		} else {
			p.key, s, _ = strings.Cut(s, ",")
			p.bare, p.value = true, "on"
		}
		list = append(list, p)
	}
	return list
}

// splitImplied is splitOptions where the first pair may be a value alone, that of
// key.
func splitImplied(s, key string) []pair {
	if end := strings.IndexAny(s, "=,"); s == "" || end >= 0 && s[end] == '=' {
		return splitOptions(s)
	}
	value, rest := cutValue(s)
	return append([]pair{{key: key, value: value}}, splitOptions(rest)...)
}

// cutValue returns the value that s begins with, its doubled commas undone,
// and what follows the comma after it.
func cutValue(s string) (value, rest string) {
	var b strings.Builder
	for {
		part, after, found := strings.Cut(s, ",")
		b.WriteString(part)
		if !found || !strings.HasPrefix(after, ",") {
			return b.String(), after
		}
		b.WriteByte(',')
		s = after[1:]
	}
}
