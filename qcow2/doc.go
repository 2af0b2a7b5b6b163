// Package qcow2 reads and writes qcow2 images, versions 2 and 3.
//
// # Stations of a guest write
//
//	guest write
//	   | write.go      split into runs, lock the guest range
//	   v
//	 mapping.go ---- cow.go      resolve; old bytes in, from cluster, backing or compressed data
//	   v
//	 alloc.go -----> refcount.go     a cluster is referenced on disk only after its count is on disk
//	   |                 |
//	   v                 v
//	 data -> file     tables.go      a table names a cluster only after the data in it is safe to see
//	                     | flush.go
//	                     v file
//
// Data and metadata are never written by one function: resolve, then data,
// then publish.
//
// # Order
//
// Data goes to the file when it is written. Changes of tables stay in memory
// until a flush, which writes them in this order:
//
//  1. refcount blocks, and with them every increment;
//  2. after a sync, refcount table entries that name new refcount blocks;
//  3. after a sync of tables and data, links: L2 entries and L1 entries;
//  4. after a sync, decrements are made in memory, for what those links no
//     longer refer to; they ride to the disk with the next flush.
//
// A new table is written once, empty or copied, when its cluster is allocated:
// a full disk shows there, where it can still be undone, and step 3 never
// names a table that is not on disk. A cluster whose refcount is to fall keeps
// its count, and so can't be used again, until the links are on disk and until
// no request that may have resolved to it is still running (pin.go).
//
// A crash at any instant thus leaves links that name only counted clusters and
// tables that are on disk. What can be lost are clusters counted and not
// linked: leaks, which a check gives back.
//
// # Changes of the image as a whole
//
// Who shares a cluster and which entries say COPIED must agree at every instant,
// and neither lies where the other does. What changes both for a whole tree of
// tables (snapshot_change.go, by way of tree.go) copies the refcount blocks,
// counts in the copies, writes changed tables to new places, and has one write
// of the header's first sector put all of it in force (swap.go). This is done
// twice, to move the old tables out of their places and to write the new ones
// there (home.go): so tables stay where they are, and the file as long as it is.
//
// # Bitmaps
//
// Before guest data changes for the first time, the bitmaps that record it are
// marked in use on disk (bitmaptrack.go). When they are stored, everything new
// is written beside the old and synced before the header's extension names the
// new directory; the old one is given up after that (bitmapstore.go). A crash
// thus leaves bitmaps that are marked, or say all.
//
// # Locks
//
// In the order in which they are taken; none is held over data I/O but writers
// and ranges, which are there for it:
//
//  1. whole: changes of the image as a whole, and checks
//  2. writers: shared by requests that write, exclusive for such a change
//  3. bitmaps.mu: the dirty bitmaps, as they are in memory
//  4. sectors: of an encrypted image, of one write
//  5. ranges: guest ranges that allocate, discard or zero, by whole clusters
//  6. flushes: one flush runs at a time; those who come meanwhile share the next
//  7. mu: tables, caches, allocator; shared to look up, exclusive to change
package qcow2
