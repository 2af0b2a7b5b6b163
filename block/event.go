package block

import "slices"

// Event is a point that an image comes past at work, by the name that QEMU's
// blkdebug driver gives it (QEMU documentation, "Block I/O error injection using
// blkdebug", and BlkdebugEvent of the QEMU QMP reference). Faults are injected
// at events, see package storage/blkdebug.
type Event string

// The events. They are announced before what they name is done.
const (
	EventReadAIO           Event = "read_aio"         // guest data is read from the image's file
	EventReadBackingAIO    Event = "read_backing_aio" // … from the image below
	EventReadCompressed    Event = "read_compressed"
	EventWriteAIO          Event = "write_aio" // guest data is written
	EventWriteCompressed   Event = "write_compressed"
	EventVMStateLoad       Event = "vmstate_load"
	EventVMStateSave       Event = "vmstate_save"
	EventCOWRead           Event = "cow_read" // old bytes around a write are read
	EventCOWWrite          Event = "cow_write"
	EventCORWrite          Event = "cor_write" // what was read is kept, copy on read
	EventEmptyImagePrepare Event = "empty_image_prepare"

	EventL1Update      Event = "l1_update"
	EventL1GrowAlloc   Event = "l1_grow_alloc_table"
	EventL1GrowWrite   Event = "l1_grow_write_table"
	EventL1GrowSwitch  Event = "l1_grow_activate_table"
	EventL1ShrinkWrite Event = "l1_shrink_write_table"
	EventL1ShrinkFree  Event = "l1_shrink_free_l2_clusters"

	EventL2Load             Event = "l2_load"
	EventL2Update           Event = "l2_update"
	EventL2UpdateCompressed Event = "l2_update_compressed"
	EventL2AllocCOWRead     Event = "l2_alloc_cow_read" // a table that others share is copied
	EventL2AllocWrite       Event = "l2_alloc_write"

	EventReftableLoad        Event = "reftable_load"
	EventReftableUpdate      Event = "reftable_update"
	EventReftableGrow        Event = "reftable_grow"
	EventRefblockLoad        Event = "refblock_load"
	EventRefblockUpdate      Event = "refblock_update"
	EventRefblockUpdatePart  Event = "refblock_update_part"
	EventRefblockAlloc       Event = "refblock_alloc"
	EventRefblockAllocHookup Event = "refblock_alloc_hookup" // the table is to name a new block
	EventRefblockAllocWrite  Event = "refblock_alloc_write"
	EventRefblockAllocBlocks Event = "refblock_alloc_write_blocks" // blocks of a table that grows
	EventRefblockAllocTable  Event = "refblock_alloc_write_table"
	EventRefblockAllocSwitch Event = "refblock_alloc_switch_table"

	EventClusterAlloc      Event = "cluster_alloc"
	EventClusterAllocBytes Event = "cluster_alloc_bytes" // room for compressed data
	EventClusterAllocSpace Event = "cluster_alloc_space"
	EventClusterFree       Event = "cluster_free"

	EventFlushToOS   Event = "flush_to_os"
	EventFlushToDisk Event = "flush_to_disk"

	// What a file does with a write; the first four are of writes that do not
	// fill whole blocks, which no file here has to read before.
	EventPwritevRMWHead      Event = "pwritev_rmw_head"
	EventPwritevRMWAfterHead Event = "pwritev_rmw_after_head"
	EventPwritevRMWTail      Event = "pwritev_rmw_tail"
	EventPwritevRMWAfterTail Event = "pwritev_rmw_after_tail"
	EventPwritev             Event = "pwritev"
	EventPwritevZero         Event = "pwritev_zero"
	EventPwritevDone         Event = "pwritev_done"

	// EventNone never comes to pass: for rules that hold from the beginning.
	EventNone Event = "none"
)

// Known reports whether e is one of the names above.
func (e Event) Known() bool { return slices.Contains(events, e) }

var events = []Event{
	EventReadAIO, EventReadBackingAIO, EventReadCompressed, EventWriteAIO, EventWriteCompressed, EventVMStateLoad, EventVMStateSave,
	EventCOWRead, EventCOWWrite, EventCORWrite, EventEmptyImagePrepare,
	EventL1Update, EventL1GrowAlloc, EventL1GrowWrite, EventL1GrowSwitch, EventL1ShrinkWrite, EventL1ShrinkFree,
	EventL2Load, EventL2Update, EventL2UpdateCompressed, EventL2AllocCOWRead, EventL2AllocWrite,
	EventReftableLoad, EventReftableUpdate, EventReftableGrow, EventRefblockLoad, EventRefblockUpdate, EventRefblockUpdatePart,
	EventRefblockAlloc, EventRefblockAllocHookup, EventRefblockAllocWrite, EventRefblockAllocBlocks, EventRefblockAllocTable,
	EventRefblockAllocSwitch, EventClusterAlloc, EventClusterAllocBytes, EventClusterAllocSpace, EventClusterFree,
	EventFlushToOS, EventFlushToDisk, EventPwritevRMWHead, EventPwritevRMWAfterHead, EventPwritevRMWTail, EventPwritevRMWAfterTail,
	EventPwritev, EventPwritevZero, EventPwritevDone, EventNone,
}

// EventSink is a File that wants to know of events. A format finds it once,
// when it opens the file; without one an event costs a comparison with nil.
type EventSink interface {
	// Event is called before what it names is done, by the goroutine that
	// does it. It may take its time.
	Event(e Event)
}

// Evented is a layer whose file is an EventSink.
type Evented interface {
	// Events returns the sink, nil if there is none.
	Events() EventSink
}
