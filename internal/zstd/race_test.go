//go:build race

package zstd

const raceDetector = true
