package luks

import (
	"crypto/hmac"
	"encoding/binary"
	"hash"
	"sync"
	"time"
)

// derive is PBKDF2 (RFC 8018, section 5.2) into key. The blocks of a long key
// do not depend on each other and are made at the same time. Unlike that of the
// standard library it takes a passphrase that can be cleared.
func derive(h func() hash.Hash, passphrase, salt []byte, iterations uint32, key []byte) {
	var wg sync.WaitGroup
	for n := uint32(1); len(key) > 0; n++ {
		part := key[:min(len(key), h().Size())]
		key = key[len(part):]
		wg.Go(func() { deriveBlock(h, passphrase, salt, iterations, n, part) })
	}
	wg.Wait()
}

// deriveBlock makes block n, as much of it as there is room for in out.
func deriveBlock(h func() hash.Hash, passphrase, salt []byte, iterations, n uint32, out []byte) {
	prf := hmac.New(h, passphrase)
	prf.Write(salt)
	prf.Write(binary.BigEndian.AppendUint32(nil, n))
	u := prf.Sum(nil)
	sum := append([]byte(nil), u...)
	for range iterations - 1 {
		prf.Reset()
		prf.Write(u)
		u = prf.Sum(u[:0])
		for i, b := range u {
			sum[i] ^= b
		}
	}
	copy(out, sum)
	clear(sum)
	clear(u)
}

// rate measures how many iterations of one block a processor does in a second,
// to find out how many take that long (0: DefaultIterTime). It saves the effort
// where that will be the least in any case.
func rate(h func() hash.Hash, t time.Duration) float64 {
	if t != 0 && t < 100*time.Microsecond {
		return 0
	}
	out := make([]byte, h().Size())
	for n := uint32(1 << 12); ; n *= 2 {
		start := time.Now()
		deriveBlock(h, []byte("passphrase"), make([]byte, saltSize), n, 1, out)
		if took := time.Since(start); took > 5*time.Millisecond || n > 1<<24 {
			return float64(n) / took.Seconds()
		}
	}
}

// iterationsFor returns how many iterations take that long for a key of so many
// bytes, on one processor, within the limits: with eight slots made like that a
// header still is.
func iterationsFor(h func() hash.Hash, perSecond float64, t time.Duration, keyBytes int) uint32 {
	each := float64(blocks(keyBytes, h().Size()))
	return uint32(max(MinIterations, min(perSecond*t.Seconds(), MaxWork/(2*Slots))/each))
}

// blocks returns how many blocks of a hash of that size a key is made of.
func blocks(keyBytes, hashSize int) int64 { return int64((keyBytes-1)/hashSize + 1) }
