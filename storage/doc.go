// Package storage is where the bytes of an image live: File is a local file or
// block device, Memory is memory, and Pending is a file that appears under its
// name only when it is complete. All are block.Files with as many of the
// optional interfaces of package block as the operating system can serve.
//
// File locks its images on the same bytes as QEMU does, so that the two can
// share a machine without harming each other's images.
package storage
