package model

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Sequence is an image and what is done to it.
type Sequence struct {
	Seed int64
	Size int64
	// Base is the size of the backing image, which is filled; -1 for none. The
	// Seed tells how many more lie below it.
	Base int64
	// Cluster is the unit that operations were laid out by.
	Cluster int64
	// Options are creation options, in qemu-img's names.
	Options map[string]string
	Ops     []Op
}

// String writes the sequence as ParseSequence reads it.
func (s Sequence) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "image seed=%d size=%d base=%d cluster=%d", s.Seed, s.Size, s.Base, s.Cluster)
	for _, k := range slices.Sorted(maps.Keys(s.Options)) {
		fmt.Fprintf(&b, " -o %s=%s", k, s.Options[k])
	}
	b.WriteByte('\n')
	for _, o := range s.Ops {
		b.WriteString(o.String() + "\n")
	}
	return b.String()
}

// ParseSequence reads what String has written. Lines that begin with # and
// empty ones are left out.
func ParseSequence(text string) (Sequence, error) {
	s := Sequence{Options: map[string]string{}}
	seen := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		head, isHead := strings.CutPrefix(line, "image ")
		var err error
		switch {
		case line == "" || line[0] == '#':
		case isHead:
			seen, err = true, s.parseHead(strings.Fields(head))
		default:
			var o Op
			o, err = ParseOp(line)
			s.Ops = append(s.Ops, o)
		}
		if err != nil {
			return s, err
		}
	}
	if !seen {
		return s, fmt.Errorf("sequence: no line that begins with %q", "image")
	}
	return s, nil
}

func (s *Sequence) parseHead(fields []string) error {
	numbers := map[string]*int64{"seed": &s.Seed, "size": &s.Size, "base": &s.Base, "cluster": &s.Cluster}
	option := false
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		switch n := numbers[key]; {
		case f == "-o":
			option = true
			continue
		case option && ok:
			s.Options[key] = value
		case n != nil:
			var err error
			if *n, err = strconv.ParseInt(value, 0, 64); err != nil {
				return fmt.Errorf("image line: %w", err)
			}
		default:
			return fmt.Errorf("image line: %q is not known", f)
		}
		option = false
	}
	return nil
}
