package qcow2

import (
	"bytes"
	"io"

	"github.com/klauspost/compress/flate"
	kz "github.com/klauspost/compress/zstd"
)

type tmpInflate struct{}

func (tmpInflate) Decode(dst, src []byte) error {
	_, err := io.ReadFull(flate.NewReader(bytes.NewReader(src)), dst)
	return err
}

func tmpDeflate(dst, src []byte) (int, bool) {
	var b bytes.Buffer
	w, _ := flate.NewWriterWindow(&b, 4096)
	w.Write(src)
	w.Close()
	if b.Len() > len(dst) {
		return 0, false
	}
	return copy(dst, b.Bytes()), true
}

func tmpZstdC(dst, src []byte) (int, bool) {
	e, _ := kz.NewWriter(nil)
	b := e.EncodeAll(src, nil)
	if len(b) > len(dst) {
		return 0, false
	}
	return copy(dst, b), true
}

func tmpZstdD(dst, src []byte) error {
	r, err := kz.NewReader(bytes.NewReader(src))
	if err != nil {
		return err
	}
	_, err = io.ReadFull(r, dst)
	return err
}
