package inflate

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	kflate "github.com/klauspost/compress/flate"
)

// contents are kinds of data, each made to any length, always the same.
var contents = map[string]func(n int) []byte{
	"zero":   func(n int) []byte { return make([]byte, n) },
	"random": random,
	"period": func(n int) []byte { return bytes.Repeat([]byte("0123456789abcdefg"), n/17+1)[:n] },
	"text":   text,
	"table":  table,
	"runs":   runs,
}

func random(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

func text(n int) []byte {
	words := strings.Fields("the of disk and to image a in cluster that is sector for it table as was with be by offset")
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%s%c", words[min(r.IntN(len(words)), r.IntN(len(words)))], " \n"[r.IntN(12)/11])
	}
	return b.Bytes()[:n]
}

// table is records with fields that count up, as tables of a program have.
func table(n int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	var b []byte
	for i := 0; len(b) < n; i++ {
		b = append(b, byte(i), byte(i>>8), 0, 0, byte(r.IntN(4)), 0x40, byte(r.Uint32()), 0xff)
	}
	return b[:n]
}

// runs is short repeats of every small distance.
func runs(n int) []byte {
	r := rand.New(rand.NewPCG(5, 6))
	var b []byte
	for len(b) < n {
		p := random(300)[r.IntN(280):][:1+r.IntN(20)]
		b = append(b, bytes.Repeat(p, 1+r.IntN(40))...)
	}
	return b[:n]
}

// encoder is a compressor that can be used again.
type encoder interface {
	io.WriteCloser
	Reset(io.Writer)
}

// encoders are all ways to write a stream that the two libraries know.
func encoders(t testing.TB) map[string]encoder {
	all := map[string]encoder{}
	add := func(name string, e encoder, err error) {
		if err != nil {
			t.Fatal(err)
		}
		all[name] = e
	}
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		w, err := flate.NewWriter(nil, level)
		add(fmt.Sprint("std ", level), w, err)
	}
	for level := kflate.HuffmanOnly; level <= kflate.BestCompression; level++ {
		w, err := kflate.NewWriter(nil, level)
		add(fmt.Sprint("klauspost ", level), w, err)
	}
	for _, window := range []int{32, 4096, 32768} {
		w, err := kflate.NewWriterWindow(nil, window)
		add(fmt.Sprint("window ", window), w, err)
	}
	add("stateless", kflate.NewStatelessWriter(nil).(encoder), nil)
	return all
}

func encode(t testing.TB, e encoder, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	e.Reset(&b)
	if _, err := e.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var standardReader = flate.NewReader(nil)

// standard decodes with the library, for one test at a time.
func standard(dst, src []byte) error {
	if err := standardReader.(flate.Resetter).Reset(bytes.NewReader(src), nil); err != nil {
		return err
	}
	_, err := io.ReadFull(standardReader, dst)
	return err
}
