package diskimg

// This file says which locks each use of an image takes: those that the QEMU
// tools take, so that both keep out of each other's way.

import "github.com/diskimg/diskimg/storage"

func lockImage(f *Format, o *OpenOptions) storage.LockMode {
	raw := f.Name == rawName
	switch {
	case o.ForceShare, raw && o.LiveRaw && !o.Writable:
		return storage.LockForceShared
	case raw && o.Writable:
		return storage.LockRawWriter
	case o.Writable:
		return storage.LockWriter
	}
	return storage.LockReader
}

// lockInspect is for looking at metadata alone.
func lockInspect(f *Format, share bool) storage.LockMode {
	if share || f.Name == rawName {
		return storage.LockNone
	}
	return storage.LockInfo
}

// lockDataFile is for the external data file of an image.
func lockDataFile(writable, share bool) storage.LockMode {
	const unresized = storage.AllPerms &^ storage.Resize
	switch {
	case share:
		return storage.LockForceShared
	case writable:
		return storage.LockMode{Use: storage.ConsistentRead | storage.Write | storage.Resize, Share: unresized}
	}
	return storage.LockMode{Use: storage.ConsistentRead, Share: unresized}
}
