//go:build !linux

package storage

import "os"

// rename gives from the name to, whatever is there.
func rename(from, to string, _ bool) error { return os.Rename(from, to) }

func isMountPoint(string) bool { return false }
