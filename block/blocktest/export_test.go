package blocktest

import "testing"

// RunPart runs one part of the suite.
func RunPart(t testing.TB, name string, f Format) {
	for _, p := range parts {
		if p.name == name {
			p.run(newSuite(t, f))
		}
	}
}
