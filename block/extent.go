package block

import "reflect"

// Kind says how the content of an extent is to be had.
type Kind uint8

const (
	// Data lies as it is at Offset of File.
	Data Kind = iota
	// Below is not in this layer: it reads as the backing image does, and as
	// zero where there is no backing image or it has ended.
	Below
	// Zero reads as zero without looking anywhere.
	Zero
	// Special must be decoded by the layer: compressed or encrypted.
	Special
)

func (k Kind) String() string {
	return [...]string{"data", "below", "zero", "special"}[k&3]
}

// Extent is a range of the guest disk whose content is to be had in one way.
type Extent struct {
	Start  int64 // guest offset, bytes
	Length int64 // bytes, greater than zero
	Kind   Kind

	// File and Offset say where Data lies. For Special, Offset is where the
	// encoded bytes begin. For Zero and Below with HasOffset, Offset is the
	// space that is set aside for the range.
	File      File
	Offset    int64
	HasOffset bool

	// Stored is how many bytes a Special extent takes up, when known.
	Stored int64
	// Compressed says that a Special extent is compressed.
	Compressed bool
	// MayBeZero says that Data may well be holes in File, so that it is worth
	// asking it: space was set aside without writing it.
	MayBeZero bool
	// Plain says that File holds the guest disk as it is, so that a hole in
	// File is a hole in the disk, not only zeros in a place that is its own.
	Plain bool

	// Allocated says that this layer, or the one at Depth, decides the content.
	Allocated bool
	// Depth is filled in by Image.Extents: 0 for the image itself, 1 for its
	// backing image, and so on.
	Depth int
}

// End returns the guest offset after the last byte.
func (e Extent) End() int64 { return e.Start + e.Length }

// follows reports whether next continues e: alike, and contiguous wherever
// each of them lies. Compressed extents are each their own.
func (e Extent) follows(next Extent) bool {
	alike := e.Kind == next.Kind && e.Depth == next.Depth && e.Allocated == next.Allocated &&
		e.Compressed == next.Compressed && e.HasOffset == next.HasOffset &&
		sameFile(e.File, next.File) && e.MayBeZero == next.MayBeZero && e.Plain == next.Plain
	if !alike || e.End() != next.Start {
		return false
	}
	if e.Kind == Special {
		return true
	}
	return !e.HasOffset || e.Offset+e.Length == next.Offset
}

// sameFile reports whether two files are one. Those of types that can't be
// compared are taken for two.
func sameFile(a, b File) bool {
	return a == nil && b == nil || a != nil && b != nil && reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}
