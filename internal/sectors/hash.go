package sectors

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"github.com/diskimg/diskimg/block"
	"golang.org/x/crypto/ripemd160" //lint:ignore SA1019 disks that are encrypted so are to be read
)

var hashes = map[string]func() hash.Hash{
	"md5":       md5.New,
	"sha1":      sha1.New,
	"sha224":    sha256.New224,
	"sha256":    sha256.New,
	"sha384":    sha512.New384,
	"sha512":    sha512.New,
	"ripemd160": ripemd160.New,
}

// NewHash returns the hash function of that name.
func NewHash(name string) (func() hash.Hash, error) {
	if h, ok := hashes[name]; ok {
		return h, nil
	}
	return nil, block.Unsupportedf("Hash algorithm '%s' not supported", name)
}
