package model

import (
	"fmt"
	"reflect"
	"testing"
)

var qcow2Options = map[string][]string{
	"compat":           {"0.10", "1.1"},
	"cluster_size":     {"512", "4k", "64k", "2M"},
	"refcount_bits":    {"1", "2", "4", "8", "16", "32", "64"},
	"compression_type": {"zlib", "zstd"},
	"extended_l2":      {"off", "on"},
	"preallocation":    {"off", "metadata", "falloc", "full"},
	"lazy_refcounts":   {"off", "on"},
}

func possible(m map[string]string) bool {
	old := m["compat"] == "0.10"
	switch {
	case old && (m["refcount_bits"] != "16" || m["compression_type"] != "zlib" || m["extended_l2"] == "on" || m["lazy_refcounts"] == "on"):
		return false
	case m["extended_l2"] == "on" && (m["cluster_size"] == "512" || m["cluster_size"] == "4k"):
		return false
	}
	return true
}

// Every pair that some possible row has is in one of the rows.
func TestPairsCover(t *testing.T) {
	for _, ok := range []func(map[string]string) bool{nil, possible} {
		rows := Pairs(qcow2Options, ok)
		have := map[string]bool{}
		for _, row := range rows {
			if len(row) != len(qcow2Options) || ok != nil && !ok(row) {
				t.Errorf("row %v is not possible", row)
			}
			eachPair(row, func(p string) { have[p] = true })
		}
		missing := map[string]bool{}
		product(qcow2Options, func(row map[string]string) {
			if ok == nil || ok(row) {
				eachPair(row, func(p string) {
					if !have[p] {
						missing[p] = true
					}
				})
			}
		})
		if len(missing) > 0 {
			t.Errorf("missing: %v", missing)
		}
		if len(rows) > 40 { // 28 is the least there can be
			t.Errorf("%d rows", len(rows))
		}
		if again := Pairs(qcow2Options, ok); !reflect.DeepEqual(rows, again) {
			t.Error("a second call returns other rows")
		}
		t.Logf("%d pairs in %d rows", len(have), len(rows))
	}
}

func eachPair(row map[string]string, f func(string)) {
	for a, av := range row {
		for b, bv := range row {
			if a < b {
				f(fmt.Sprint(a, "=", av, " ", b, "=", bv))
			}
		}
	}
}

func product(options map[string][]string, f func(map[string]string)) {
	rows := []map[string]string{{}}
	for name, values := range options {
		var next []map[string]string
		for _, row := range rows {
			for _, v := range values {
				longer := map[string]string{name: v}
				for k, w := range row {
					longer[k] = w
				}
				next = append(next, longer)
			}
		}
		rows = next
	}
	for _, row := range rows {
		f(row)
	}
}

func TestPairsOfFewOptions(t *testing.T) {
	if rows := Pairs(nil, nil); len(rows) != 0 {
		t.Errorf("no options: %v", rows)
	}
	rows := Pairs(map[string][]string{"a": {"1", "2", "3"}}, nil)
	if want := []map[string]string{{"a": "1"}, {"a": "2"}, {"a": "3"}}; !reflect.DeepEqual(rows, want) {
		t.Errorf("one option: %v, want %v", rows, want)
	}
	if rows := Pairs(qcow2Options, func(map[string]string) bool { return false }); len(rows) != 0 {
		t.Errorf("nothing possible: %v", rows)
	}
}
