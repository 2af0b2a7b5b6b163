package cli

import (
	"cmp"
	"math"
	"strconv"
	"strings"
)

// This file is the values of options that are numbers and sizes.

// number is an option that takes a whole number, by the rules of strtol.
type number struct {
	name               string // in messages
	value, least, most int    // a most of 0 is 2^31-1
}

func (n *number) set(s string) error {
	v, err := strconv.ParseInt(strings.TrimLeft(s, " \t\n\v\f\r"), 0, 64)
	if err != nil || strings.Contains(s, "_") || v < int64(n.least) || v > int64(cmp.Or(n.most, math.MaxInt32)) {
		return failf("Invalid %s specified", n.name)
	}
	n.value = int(v)
	return nil
}

// length is an option that takes a size.
type length struct {
	name         string // in messages
	value, least int64
	most         int64 // 0 is 2^63-1
}

func (l *length) set(s string) (err error) {
	l.value, err = readSize(s, l.name, l.least, cmp.Or(l.most, math.MaxInt64))
	return err
}
