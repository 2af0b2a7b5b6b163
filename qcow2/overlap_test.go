package qcow2

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// slowMeta is a metaMap cluster by cluster.
type slowMeta map[int64]metaKind

func (m slowMeta) add(kind metaKind, start, n int64) {
	for c := start; c < start+n; c++ {
		if _, ok := m[c]; ok {
			m[c] = metaConflict
		} else {
			m[c] = kind
		}
	}
}

func (m slowMeta) remove(start, n int64) {
	for c := start; c < start+n; c++ {
		delete(m, c)
	}
}

// compare holds a map against m, in all clusters below end.
func (m slowMeta) compare(fast *metaMap, end int64) error {
	covered := 0
	for i, r := range fast.runs {
		if r.start >= r.end || i > 0 && fast.runs[i-1].end > r.start {
			return fmt.Errorf("run %d of %v", i, fast.runs)
		}
		covered += int(r.end - r.start)
	}
	for c := range end {
		kind, ok := m[c]
		r, hit := fast.hit(c, 1)
		if hit != ok || ok && (r.kind != kind || c < r.start || c >= r.end) {
			return fmt.Errorf("cluster %d is %v %v, want %v %v", c, r.kind, hit, kind, ok)
		}
	}
	if covered != len(m) {
		return fmt.Errorf("%d clusters are covered, want %d", covered, len(m))
	}
	return nil
}

// questions asks both for runs of clusters.
func (m slowMeta) questions(r *rand.Rand, fast *metaMap, end int64) error {
	for range 20 {
		start, n := r.Int64N(end), 1+r.Int64N(12)
		first, kinds := int64(-1), map[metaKind]int64{}
		for c := start; c < start+n; c++ {
			kind, ok := m[c]
			if ok && first < 0 {
				first = c
			}
			if ok {
				kinds[kind]++
			}
		}
		got, hit := fast.hit(start, n)
		if hit != (first >= 0) || hit && (got.kind != m[first] || max(got.start, start) != first) {
			return fmt.Errorf("hit(%d, %d) = %v, %v, want cluster %d", start, n, got, hit, first)
		}
		for kind := range metaConflict + 1 {
			if fast.is(kind, start, n) != (kinds[kind] == n) {
				return fmt.Errorf("is(%v, %d, %d) is wrong: %v", kind, start, n, kinds)
			}
		}
	}
	return nil
}

func TestMetaMap(t *testing.T) {
	const end = 120
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		var fast metaMap
		slow := slowMeta{}
		for step := range 60 {
			start := r.Int64N(end)
			n := min(end-start, 1+r.Int64N(15))
			kind := metaKind(r.IntN(int(metaConflict)))
			what := fmt.Sprintf("remove %d+%d", start, n)
			if r.IntN(3) > 0 {
				what = fmt.Sprintf("add %v %d+%d", kind, start, n)
				fast.add(kind, start, n)
				slow.add(kind, start, n)
			} else {
				fast.remove(start, n)
				slow.remove(start, n)
			}
			err := slow.compare(&fast, end)
			if err == nil {
				err = slow.questions(r, &fast, end)
			}
			if err != nil {
				t.Fatalf("seed %d, step %d, %s: %v", seed, step, what, err)
			}
		}
	}
}

// A collector makes the same map as adding one by one, whatever the order.
func TestMetaCollector(t *testing.T) {
	const end = 200
	g := (&header{version: 3, clusterBits: 9}).geometry()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		collector := metaCollector{geo: &g}
		slow := slowMeta{}
		for range 1 + r.IntN(40) {
			kind := metaKind(r.IntN(int(metaConflict)))
			start := r.Int64N(end)
			bytes := r.Int64N(6*512) * r.Int64N(2)
			if r.IntN(3) == 0 {
				collector.addTable(kind, uint64(start<<9))
				bytes = 512
				if start == 0 {
					bytes = 0
				}
			} else {
				collector.add(kind, uint64(start<<9), bytes)
			}
			slow.add(kind, start, (bytes+511)/512)
		}
		fast := collector.build()
		if err := slow.compare(&fast, end+10); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// Snapshots that claim the same space over and over take no more runs than
// there are different claims, and so no more time.
func TestMetaMapOfOverlappingClaims(t *testing.T) {
	g := (&header{version: 3, clusterBits: 9}).geometry()
	for _, c := range []struct {
		name  string
		most  int // runs
		claim func(i int64) (start, n int64)
	}{
		{"one inside the other", 3, func(i int64) (int64, int64) { return i, 2 * (maxSnapshots - i) }},
		{"one after the other", 3, func(i int64) (int64, int64) { return i, maxSnapshots }},
		{"all alike", 1, func(i int64) (int64, int64) { return 7, maxSnapshots }},
		{"singles in a long one", 2*maxSnapshots + 1, func(i int64) (int64, int64) { return 2 * i, 1 + (1-min(i, 1))*4*maxSnapshots }},
	} {
		m := metaCollector{geo: &g}
		for i := range int64(maxSnapshots) {
			start, n := c.claim(i)
			m.add(metaInactiveL1, uint64(start<<9), n<<9)
		}
		if runs := len(m.build().runs); runs > c.most {
			t.Errorf("%s: %d runs, want at most %d", c.name, runs, c.most)
		}
	}
}

func TestMetaNames(t *testing.T) {
	seen := map[string]bool{}
	for k := range metaConflict + 1 {
		if k.String() == "" || seen[k.String()] {
			t.Errorf("kind %d is called %q", k, k)
		}
		seen[k.String()] = true
	}
}
