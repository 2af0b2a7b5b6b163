//go:build race

package blocktest_test

const raceDetector = true
