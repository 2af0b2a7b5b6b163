// Package crashfile tells what a power cut can leave of files. A File works as
// any block.File does and keeps a log of what was done to it; States goes
// through the log and yields, for each instant at which the power could have
// failed, the contents that the files could have afterwards.
//
// # What is legal
//
// What was done to a file before a Sync of that file is durable when the Sync
// returns. What came after the last Sync is in flight, and any part of it may
// have reached the disk, in any order, under these rules, which hold for a
// local file of any file system and for a disk with a write cache:
//
//   - A sector of 512 bytes is whole. It holds what it held when it was
//     durable or after any one of the operations in flight that changed it: a
//     sector with the second of two changes has the first one too.
//   - Different sectors are independent. An operation on several of them can
//     arrive torn, at the borders of sectors or of pages of 4096 bytes.
//   - The length is independent of the content: it may be that of before, with
//     the new content behind it lost, or that of after, with zeros where the
//     content has not arrived.
//   - A file that was cut short and made longer again never shows what was cut
//     off.
//
// Each sector and the length go through their states in order, so no states
// are missed by applying what survives in the order of the log.
package crashfile
