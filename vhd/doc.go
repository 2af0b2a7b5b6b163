// Package vhd reads and writes VHD images, the disks of Virtual PC, Hyper-V and
// Azure: fixed, dynamic and differencing. On the command line their name is
// vpc, as it is in QEMU. What is on disk is described in Microsoft's "Virtual
// Hard Disk Image Format Specification" of 2006.
//
// A fixed disk is the guest's bytes and a footer behind them. Of the others the
// disk is cut into blocks, of 2 MiB for the most part. The block allocation
// table (BAT) says where each begins in the file; in front of its data it has a
// bitmap with one bit for each sector. A sector without its bit is zero in a
// dynamic disk, and in a differencing disk it is that of the parent.
//
//	guest write
//	   | write.go      where all sectors have their bits: in place
//	   v
//	 alloc.go      else lock the blocks, and find new ones a place at the end
//	   v
//	 data -> file  bitmap.go    bits, and bat entries, in memory
//	                  | flush.go
//	                  v file
//
// # Order
//
// The end of a file is where the footer is, so a new block takes its place.
// What opens an image then is the copy of the footer at its beginning.
//
//  1. Data goes to the file when it is written. Before it does in a new block,
//     the file is made so long that it ends in zeros behind the block, as what
//     the guest writes may look like a footer; and the first bitmap of the
//     block goes to the file: all zeros in a differencing disk, all ones in a
//     dynamic one, where what was never written is zero anyway.
//  2. A flush writes the footer after the last block and syncs.
//  3. After that sync it writes what refers to data, BAT entries and bits, and
//     syncs again.
//
// What changes the image as a whole (size, parent) happens under a footer that
// is at the beginning only: the one at the end is cut off first, and written
// again last. The copy is one sector, and so is what changes of a header in
// place, so that the old or the new is there. A fixed disk, which has no copy,
// gets its new footer before the old one goes.
//
// A power cut at any instant leaves BAT entries that name whole blocks within
// the file and bits that belong to data on disk. What can be lost is a block at
// the end that nothing names, and the footer behind it: a check calls that a
// leak.
//
// # Locks
//
// In the order in which they are taken; none is held over data I/O but the first
// three, which are there for it:
//
//  1. writers: shared by requests that write, exclusive for a change of the
//     image as a whole
//  2. readers: shared by requests that read, exclusive while blocks go
//  3. ranges: guest ranges that need a block or bits, by whole blocks
//  4. the turn to flush
//  5. mu: tables; shared to look up, exclusive to change
package vhd
