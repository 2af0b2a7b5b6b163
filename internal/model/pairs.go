package model

import (
	"maps"
	"slices"
)

// Pairs returns rows of option values such that each two values of different
// options that can go together do so in at least one row. ok says whether a
// complete row is possible; nil allows all. The answer depends on the arguments
// alone, and is empty if no row is possible.
func Pairs(options map[string][]string, ok func(row map[string]string) bool) []map[string]string {
	if ok == nil {
		ok = func(map[string]string) bool { return true }
	}
	c := &cover{options: options, names: slices.Sorted(maps.Keys(options)), ok: ok, done: map[pair]bool{}}
	var rows []map[string]string
	for _, p := range c.all() {
		if c.done[p] {
			continue
		}
		row := map[string]string{p.a.name: p.a.value, p.b.name: p.b.value}
		if c.complete(row) {
			c.mark(row)
			rows = append(rows, row)
		}
	}
	return rows
}

// setting is one option with its value, pair two of them, a sorted before b.
// With a single option, both are the same.
type (
	setting struct{ name, value string }
	pair    struct{ a, b setting }
)

// cover is a search for rows. done are the pairs that rows have already.
type cover struct {
	options map[string][]string
	names   []string
	ok      func(map[string]string) bool
	done    map[pair]bool
}

// all returns all pairs, possible or not.
func (c *cover) all() (list []pair) {
	for i, a := range c.names {
		rest := c.names[i+1:]
		if len(c.names) == 1 {
			rest = c.names
		}
		for _, b := range rest {
			for _, va := range c.options[a] {
				for _, vb := range c.options[b] {
					if p := (pair{setting{a, va}, setting{b, vb}}); a != b || va == vb {
						list = append(list, p)
					}
				}
			}
		}
	}
	return list
}

// complete gives row a value for every option, those first that make most new
// pairs, and reports whether that is possible.
func (c *cover) complete(row map[string]string) bool {
	i := slices.IndexFunc(c.names, func(name string) bool { _, set := row[name]; return !set })
	if i < 0 {
		return c.ok(row)
	}
	name := c.names[i]
	values := slices.Clone(c.options[name])
	gain := map[string]int{}
	for _, v := range values {
		gain[v] = c.gain(row, setting{name, v})
	}
	slices.SortStableFunc(values, func(a, b string) int { return gain[b] - gain[a] })
	for _, v := range values {
		row[name] = v
		if c.complete(row) {
			return true
		}
	}
	delete(row, name)
	return false
}

// gain counts the new pairs that a setting makes with what is in row.
func (c *cover) gain(row map[string]string, s setting) (n int) {
	for name, value := range row {
		if !c.done[sorted(s, setting{name, value})] {
			n++
		}
	}
	return n
}

func sorted(a, b setting) pair {
	if a.name > b.name {
		a, b = b, a
	}
	return pair{a, b}
}

// mark notes the pairs of a row.
func (c *cover) mark(row map[string]string) {
	for an, av := range row {
		for bn, bv := range row {
			c.done[sorted(setting{an, av}, setting{bn, bv})] = true
		}
	}
}
