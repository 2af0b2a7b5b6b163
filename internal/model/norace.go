//go:build !race

package model

// Race reports whether the race detector is on. It makes big buffers slow.
const Race = false
