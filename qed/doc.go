// Package qed reads, writes, makes, checks and repairs QED images, the format
// that QEMU's docs/interop/qed_spec.txt describes: two levels of tables, all
// numbers little-endian, no reference counts, optionally a backing image.
//
// Clusters are taken at the end of the file and not given back, but for all of
// them at once when the image is made empty. Data goes to
// the file at once. Entries of tables change in memory and go to the file with
// a flush, in this order:
//
//	sync, if there are entries to be written
//	L2 and L1 entries
//	sync
//
// So at any instant of time:
//
//  1. Before an entry is written, the data or the table that it leads to is on
//     disk, and with it the length of the file.
//
//  2. Before the file first grows, the need check bit is on disk.
//
//  3. After the entries are on disk, and not earlier, is the need check bit
//     cleared: by a flush some seconds after the last new cluster, and at close.
//
//  4. Before space is given back, the L1 table has no entries on disk.
//
// What a power cut leaves has no entry that leads to a wrong place. It may have
// space at its end that nothing refers to; then the need check bit is set.
//
// Before the first write through a handle all tables are read and checked. An
// image in which an entry leads out of the file, or two lead to one place, can
// be read and repaired, never written: nothing tells what such a write would
// hit. From then on only this handle changes tables, so no later write looks.
//
// Locks, in the order in which they are taken. None is held over data I/O but
// the first two:
//
//   - ranges: whole clusters of the guest disk, for what allocates or zeroes;
//   - pins: shared by who uses what Resolve said, exclusive to give space back;
//   - flushes: one flush at a time;
//   - mu: tables, cache, end of file; shared to look up, exclusive to change.
package qed
