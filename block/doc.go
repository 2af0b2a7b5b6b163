// Package block is the vocabulary of disk images: the File that the bytes of
// an image live in, the Layer that a format implements, the Image that a user
// holds, the Extent that says where a range lives, the Policy on what an image
// may refer to, and the errors. It imports the standard library only.
//
// A Layer does not read. It answers where a range of the guest disk lives, and
// Image does the reading for all formats: bounds, end of file, zero fill and
// the walk down the backing chain. Mapping, measuring, comparing, sparse
// converting and block status are that same question. Writes belong to the
// format, because only it knows the order in which they must reach the disk.
package block
