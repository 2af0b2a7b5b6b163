package luks

import (
	"strings"

	"github.com/diskimg/diskimg/block"
)

// Describe lists what a header says that anybody may know, in the order of
// qemu-img info, which has other things between, such as extra.
func (h *Header) Describe(extra ...block.Field) []block.Field {
	mode, ivgen, _ := strings.Cut(h.Mode, "-")
	ivgen, ivHash, _ := strings.Cut(ivgen, ":")
	list := []block.Field{{Name: "ivgen-alg", Value: ivgen}}
	list = append(list,
		block.Field{Name: "hash-alg", Value: h.Hash}, block.Field{Name: "cipher-alg", Value: h.CipherName()}, block.Field{Name: "uuid", Value: h.UUID})
	if ivHash != "" {
		list = append(list, block.Field{Name: "ivgen-hash-alg", Value: ivHash})
	}
	list = append(list, extra...)
	return append(list,
		block.Field{Name: "cipher-mode", Value: mode}, block.Field{Name: "slots", Value: h.describeSlots()},
		block.Field{Name: "payload-offset", Value: h.Payload}, block.Field{Name: "master-key-iters", Value: int64(h.Iterations)})
}

func (h *Header) describeSlots() []any {
	list := make([]any, Slots)
	for i := range h.Slots {
		s := &h.Slots[i]
		place := block.Field{Name: "key-offset", Value: s.Offset}
		list[i] = []block.Field{{Name: "active", Value: false}, place}
		if s.Active {
			list[i] = []block.Field{
				{Name: "active", Value: true}, {Name: "iters", Value: int64(s.Iterations)}, place, {Name: "stripes", Value: int64(s.Stripes)},
			}
		}
	}
	return list
}
