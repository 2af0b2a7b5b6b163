// Package model compares disk images with the simplest model of a disk, a slice
// of bytes. It makes random sequences of operations, runs them on an image and
// on the model at once, and demands that the image reads as the model does and
// checks clean at each close. A sequence is given by its seed; one that fails
// is made shorter while it fails and printed so that it can be run again, by
// this package and by qemu-io.
//
// The same sequences are run by the real qemu-io, on an image of its own
// (Replay) and in turns on one image (Relay); RunConcurrent runs operations of
// many goroutines that meet on the same sectors.
//
// Each run is deterministic. Larger ones have the environment variable
// DISKIMG_LONG=1, other ones the flags -model.seed, -model.runs and -model.ops.
package model
