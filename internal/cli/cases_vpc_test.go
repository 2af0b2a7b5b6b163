package cli

import "testing"

// vpcLines are about VHD. qemu-img knows no other disks of that kind than fixed
// and dynamic ones.
var vpcLines = []string{
	"create -f vpc new 1M", "create -f vpc new 0", "create -f vpc new 1", "create -f vpc new 10G", "create -f vpc new 128G", "create -f vpc new 2040G", "create -f vpc new 2041G",
	"create -f vpc -o force_size=on new 1M", "create -f vpc -o force_size new 1000", "create -f vpc -o force_size=foo new 1M", "create -f vpc -o subformat=fixed new 3M",
	"create -f vpc -o subformat=fixed,force_size=on new 3M", "create -f vpc -o subformat=dynamic new 3M", "create -f vpc -o subformat=foo new 3M", "create -f vpc -o subformat= new 3M",
	"create -f vpc -o preallocation=full,subformat=fixed new 1M", "create -f vpc -o preallocation=falloc new 1M", "create -f vpc -o preallocation=metadata new 1M", "create -f vpc -o preallocation=foo new 1M",
	"create -f vpc -b vhd -F vpc new", "create -f vpc -F vpc new 1M", "create -f vpc -o backing_file=vhd new", "create -f vpc -o block_size=1M new 1M", "create -f vpc -o help", "create -f vpc -o help new", "create -f vpc new",
	"info vhd", "info -f vpc vhd", "info --output=json vhd", "info vhdfixed", "info -f vpc vhdfixed", "info --output=json -f vpc vhdfixed", "info -f vpc raw", "info -f vpc empty", "info -f vpc q", "info vhdbadsum",
	"map vhd", "map --output=json vhd", "map -f vpc --output=json vhdfixed", "map -f vpc vhdfixed",
	"check vhd", "check -f vpc vhdfixed", "check --output=json vhd", "check vhdbadsum",
	"compare vhd raw", "compare vhd q", "compare -s vhd raw", "compare -F vpc q vhdfixed", "compare vhd vhd",
	"convert -O vpc raw new", "convert -O vpc -o subformat=fixed raw new", "convert -O vpc -o subformat=fixed,force_size=on raw new", "convert -O vpc q new", "convert -O vpc -o force_size q new", "convert -c -O vpc q new",
	"convert -f vpc -O raw vhd new", "convert -f vpc -O raw vhdfixed new", "convert -f vpc -O qcow2 vhd new", "convert -O raw vhd new", "convert -O vpc vhd new", "convert -O vpc -B vhd raw new", "convert -O vpc -p raw new", "convert -n -O vpc raw vhdsame", "convert -O vpc -S 0 raw new",
}

func TestVPC(t *testing.T) {
	allowed := []difference{{lines: ".*subformat=fixed.*", images: true,
		why: "probed, fixed disks are raw ones with the time and a random UUID in the last sector"}}
	differential(t, sample(vpcLines, allowed), allowed...)
}
