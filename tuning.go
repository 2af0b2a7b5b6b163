package diskimg

// This file reads how an image is to be used while it is open, by the options
// that QEMU has for it.

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/diskimg/diskimg/block"
	"github.com/diskimg/diskimg/qcow2"
)

// tuneQcow2 sets what qcow2Runtime says.
func tuneQcow2(o *qcow2.OpenOptions, s *Settings) error {
	for _, part := range []func(*qcow2.OpenOptions, *Settings) error{tuneDiscard, tuneCaches, tuneOverlap} {
		if err := part(o, s); err != nil {
			return err
		}
	}
	if s.Has("lazy-refcounts") {
		on := s.Switch("lazy-refcounts")
		o.LazyRefcounts = &on
	}
	return nil
}

func tuneDiscard(o *qcow2.OpenOptions, s *Settings) error {
	if s.Has("pass-discard-request") {
		o.Discard.KeepRequested = !s.Switch("pass-discard-request")
	}
	o.Discard.KeepSnapshots = s.Has("pass-discard-snapshot") && !s.Switch("pass-discard-snapshot")
	o.Discard.PassOther = s.Switch("pass-discard-other")
	return nil
}

func tuneCaches(o *qcow2.OpenOptions, s *Settings) error {
	all, l2, refs := s.Number("cache-size"), s.Number("l2-cache-size"), s.Number("refcount-cache-size")
	switch {
	case s.Has("cache-size") && s.Has("l2-cache-size") && s.Has("refcount-cache-size"):
		return block.Invalidf("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time")
	case s.Has("cache-size") && s.Has("l2-cache-size") && l2 > all:
		return block.Invalidf("l2-cache-size may not exceed cache-size")
	case s.Has("cache-size") && refs > all:
		return block.Invalidf("refcount-cache-size may not exceed cache-size")
	case s.Has("cache-size") && s.Has("l2-cache-size"):
		refs = all - l2
	case s.Has("cache-size"):
		if refs == 0 {
			refs = min(all/4, 256<<10)
		}
		l2 = all - refs
	}
	if refs > math.MaxInt32 || s.Has("cache-size") && all > math.MaxInt32<<16 {
		return block.Invalidf("Refcount cache size too big")
	}
	o.L2CacheSize, o.RefcountCacheSize = atLeastOne(l2, s.Has("l2-cache-size")), atLeastOne(refs, s.Has("refcount-cache-size"))
	if s.Has("l2-cache-entry-size") {
		o.L2CacheEntrySize = int(max(1, min(s.Number("l2-cache-entry-size"), math.MaxInt32)))
	}
	if n := s.Number("cache-clean-interval"); n < 0 || n > math.MaxUint32 {
		return block.Invalidf("Cache clean interval too big")
	} else if s.Has("cache-clean-interval") {
		o.CacheCleanInterval = cmp.Or(time.Duration(n)*time.Second, -1) // 0 is never
	}
	return nil
}

// atLeastOne turns a size of 0 that was asked for, which would stand for the
// default, into the smallest.
func atLeastOne(n int64, given bool) int {
	if given {
		n = max(n, 1)
	}
	return int(min(n, math.MaxInt32))
}

func tuneOverlap(o *qcow2.OpenOptions, s *Settings) error {
	template, other := s.Text("overlap-check"), s.Text("overlap-check.template")
	if template != "" && other != "" && template != other {
		return block.Invalidf("Conflicting values for qcow2 options 'overlap-check' ('%s') and 'overlap-check.template' ('%s')", template, other)
	}
	if template == "" {
		template = other
	}
	checks, ok := qcow2.OverlapTemplates[template]
	if template != "" && !ok {
		return block.Invalidf("Unsupported value '%s' for qcow2 option 'overlap-check'. Allowed are any of the following: none, constant, cached, all", template)
	}
	if template == "" {
		checks = qcow2.OverlapTemplates["cached"]
	}
	checks = slices.Clone(checks)
	for _, name := range qcow2.OverlapTemplates["all"] {
		option := "overlap-check." + name
		if !s.Has(option) {
			continue
		}
		checks = slices.DeleteFunc(checks, func(n string) bool { return n == name })
		if s.Switch(option) {
			checks = append(checks, name)
		}
	}
	o.InactiveL2 = slices.Contains(checks, "inactive-l2")
	o.SkipOverlaps = slices.DeleteFunc(slices.Clone(qcow2.OverlapTemplates["all"]), func(n string) bool { return slices.Contains(checks, n) })
	return nil
}
