package qcow2

import "github.com/diskimg/diskimg/block"

// Event points, for faults; see block.Event.

// Events implements block.Evented.
func (d *disk) Events() block.EventSink { return d.events }

func (d *disk) event(e block.Event) {
	if d.events != nil {
		d.events.Event(e)
	}
}

// updateEvents are the events before a flush writes a part of a table.
var updateEvents = [...]block.Event{
	metaRefblock: block.EventRefblockUpdatePart,
	metaReftable: block.EventRefblockAllocHookup,
	metaL2:       block.EventL2Update,
	metaL1:       block.EventL1Update,
}
