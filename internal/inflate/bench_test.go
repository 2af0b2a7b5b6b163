package inflate

import (
	"bytes"
	"compress/flate"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	kflate "github.com/klauspost/compress/flate"
)

// benchCluster is the default cluster size of the format.
const benchCluster = 64 << 10

// benchStreams are clusters of what lies below /usr, each compressed as the
// format wants it: alone, with distances of at most 4096.
var benchStreams = sync.OnceValue(func() (streams [][]byte) {
	const total = 64 << 20
	var data []byte
	filepath.WalkDir("/usr", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		p, err := os.ReadFile(path)
		if err == nil {
			data = append(data, p...)
		}
		if len(data) >= total {
			return fs.SkipAll
		}
		return nil
	})
	for ; len(data) >= benchCluster; data = data[benchCluster:] {
		var b bytes.Buffer
		w, err := kflate.NewWriterWindow(&b, 4096)
		if err != nil {
			panic(err)
		}
		w.Write(data[:benchCluster])
		w.Close()
		if b.Len() < benchCluster {
			streams = append(streams, b.Bytes())
		}
	}
	return streams
})

func benchmark(b *testing.B, decode func(dst, src []byte) error) {
	streams := benchStreams()
	if len(streams) < 100 {
		b.Skip("not enough files below /usr")
	}
	dst := make([]byte, benchCluster)
	b.SetBytes(benchCluster)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := decode(dst, streams[i%len(streams)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkDecode(b *testing.B) {
	var d Decoder
	benchmark(b, d.Decode)
}

// BenchmarkKlauspost is what Decode is measured against.
func BenchmarkKlauspost(b *testing.B) {
	src := bytes.NewReader(nil)
	r := kflate.NewReader(src)
	benchmark(b, func(dst, p []byte) error {
		src.Reset(p)
		r.(kflate.Resetter).Reset(src, nil)
		_, err := io.ReadFull(r, dst)
		return err
	})
}

func BenchmarkStandard(b *testing.B) {
	src := bytes.NewReader(nil)
	r := flate.NewReader(src)
	benchmark(b, func(dst, p []byte) error {
		src.Reset(p)
		r.(flate.Resetter).Reset(src, nil)
		_, err := io.ReadFull(r, dst)
		return err
	})
}
