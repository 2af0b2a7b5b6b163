package inflate

// The header of a dynamic block (RFC 1951, section 3.2.7). After it the tables
// hold complete codes, or the sparse ones that zlib takes as well.

// lensOrder is the order in which the lengths of the codes of the code lengths
// come.
var lensOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// readTables reads the codes at the start of a dynamic block.
func (d *Decoder) readTables() error {
	d.fill()
	v, ok := d.take(14)
	if !ok {
		return ErrTruncated
	}
	nlit, ndist, nlens := int(v&31)+257, int(v>>5&31)+1, int(v>>10)+4
	if nlit > maxLitCodes || ndist > maxDistCodes {
		return ErrCounts
	}
	var lensTable lensTable
	if err := d.readLensTable(&lensTable, nlens); err != nil {
		return err
	}
	lens := d.lens[:nlit+ndist]
	if err := d.readLens(lens, &lensTable); err != nil {
		return err
	}
	switch {
	case lens[endSymbol] == 0:
		return ErrNoEnd
	case !build(d.lit[:], litRoot, litSymbols[:], lens[:nlit], true):
		return ErrLiterals
	case !build(d.dist[:], distRoot, distSymbols[:], lens[nlit:], true):
		return ErrDistances
	}
	return nil
}

// readLensTable reads the code that the code lengths are written in.
func (d *Decoder) readLensTable(t *lensTable, n int) error {
	var lens [19]uint8
	for _, s := range lensOrder[:n] {
		d.fill()
		v, ok := d.take(3)
		if !ok {
			return ErrTruncated
		}
		lens[s] = uint8(v)
	}
	if !build(t[:], lensRoot, lensSymbols[:], lens[:], false) {
		return ErrCodeLengths
	}
	return nil
}

// readLens reads code lengths, which are run-length encoded.
func (d *Decoder) readLens(lens []uint8, t *lensTable) error {
	for i := 0; i < len(lens); {
		d.fill()
		e := t[d.bits&(1<<lensRoot-1)]
		if !d.drop(e.size()) {
			return ErrTruncated
		}
		var value uint8
		var extra uint
		var least int
		switch s := e >> 16; s {
		default:
			lens[i] = uint8(s)
			i++
			continue
		case 16:
			if i == 0 {
				return ErrRepeat
			}
			value, extra, least = lens[i-1], 2, 3
		case 17:
			extra, least = 3, 3
		case 18:
			extra, least = 7, 11
		}
		v, ok := d.take(extra)
		if !ok {
			return ErrTruncated
		}
		n := least + int(v)
		if n > len(lens)-i {
			return ErrRepeat
		}
		for range n {
			lens[i] = value
			i++
		}
	}
	return nil
}
