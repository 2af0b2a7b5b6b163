package qcow2

import (
	"bytes"
	"io"
	"sync"

	kz "github.com/klauspost/compress/zstd"
)

var tmpEnc = sync.Pool{New: func() any { e, _ := kz.NewWriter(nil, kz.WithEncoderConcurrency(1)); return e }}
var tmpDec = sync.Pool{New: func() any { e, _ := kz.NewReader(nil, kz.WithDecoderConcurrency(1)); return e }}

func tmpZstdC(dst, src []byte) (int, bool) {
	e := tmpEnc.Get().(*kz.Encoder)
	defer tmpEnc.Put(e)
	b := e.EncodeAll(src, nil)
	if len(b) > len(dst) {
		return 0, false
	}
	return copy(dst, b), true
}

func tmpZstdD(dst, src []byte) error {
	r := tmpDec.Get().(*kz.Decoder)
	defer tmpDec.Put(r)
	if err := r.Reset(bytes.NewReader(src)); err != nil {
		return err
	}
	_, err := io.ReadFull(r, dst)
	return err
}
