//go:build !race

package sectors

const raceDetector = false
