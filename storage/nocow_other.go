//go:build !linux

package storage

// NoCopyOnWrite does nothing here: no file system has a use for it.
func (f *File) NoCopyOnWrite() error { return nil }
