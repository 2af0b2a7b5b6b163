package qcow2

import (
	"math/rand/v2"
	"testing"
)

// References that two maps have counted are those that one would have.
func TestRefMapMerge(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		whole, parts := newRefMap(), []*refMap{newRefMap(), newRefMap(), newRefMap()}
		for range 200 {
			c, n := r.Int64N(3000), 1+uint32(r.IntN(3)/2)*r.Uint32N(1<<31)
			whole.add(c, n)
			parts[r.IntN(len(parts))].add(c, n)
		}
		for _, p := range parts[1:] {
			parts[0].merge(p)
		}
		view := parts[0].view()
		for c := range int64(3100) {
			if want := whole.get(c); view.get(c) != want || view.end() != whole.end() {
				t.Fatalf("seed %d: cluster %d has %d references, want %d", seed, c, view.get(c), want)
			}
		}
	}
}
