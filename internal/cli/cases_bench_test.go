package cli

import "testing"

var benchLines = []string{
	"bench", "bench q q", "bench missing", "bench -c 10 q", "bench -f raw -c 10 raw", "bench -c 10 -d 1 q", "bench -c 0 q", "bench -c -1 q", "bench -c x q", "bench -c 10k q", "bench -c ' 3' q", "bench -c 0x3 q", "bench -c 010 q", "bench -c +3 q", "bench -c '' q", "bench -c 3000000000 -q q", "bench -d 3000000000 q", "bench -d x q", "bench -d -1 q",
	"bench -c 10 -o 1M q", "bench -c 10 -o x q", "bench -c 10 -o -1 q", "bench -c 10 -o 3.99M q", "bench -c 10 -o 4M q", "bench -c 10 -s 1M q", "bench -s 5M -c 1 q", "bench -s 0 -c 1 q", "bench -s x q", "bench -s -1 q", "bench -S 0 -c 2 q", "bench -S x q", "bench -S 1M -c 10 q", "bench -S 100M -c 10 q", "bench -S 3G -c 1 q", "bench -s 2G -c 1 q",
	"bench -t none -c 10 q", "bench -t foo q", "bench -t foo -c x q", "bench -c x -t foo q", "bench -i threads -c 10 q", "bench -i native -c 10 q", "bench -i native -t none -c 10 q", "bench -i foo q", "bench -i io_uring -c 10 q", "bench -n -c 10 q", "bench -n -t none -c 10 q", "bench -i native --flush-interval 5 q",
	"bench -w -c 10 q", "bench -w -c 10 --pattern 3 q", "bench -w -c 10 --pattern=256 q", "bench -w -c 10 --pattern=-1 q", "bench -w -c 10 --pattern=x q", "bench -c 10 --pattern=3 q", "bench -w -c 10 --flush-interval 5 q", "bench -c 10 --flush-interval 5 q", "bench -w -c 10 --flush-interval 5 --no-drain q", "bench -c 10 --no-drain q", "bench -w --no-drain -c 10 q", "bench -w -c 11 --flush-interval 5 -d 5 q", "bench -w -c 11 --flush-interval 5 -d 5 --no-drain --pattern 9 q", "bench --flush-interval x -w q", "bench --flush-interval 0 -w -c 3 q",
	"bench -U -c 10 q", "bench -U -w -c 10 q", "bench -q -c 10 q", "bench -q -w -c 10 q", "bench --image-opts -c 10 driver=qcow2,file.filename=q", "bench --foo q", "bench -Z q", "bench -c", "bench -p q", "bench --object foo q", "bench --depth 3",
	"bench empty", "bench -w -c 1 -f raw raw", "bench -w -c 1 raw", "bench badl1", "bench dir", "bench aes", "bench -f foo q", "bench -f qcow2 raw", "bench -c 4 -w -s 3k -o 1k --pattern 7 q", "bench -c 10 -t unsafe --force-share q", "bench -t writethrough -w -c 3 q", "bench -c 2 -s 4M q", "bench -c 5 -s 3M q", "bench -c 100 -o 1 q", "bench -c 10 -w --pattern 4 -s 64k over2", "bench -c 10 -w compressed", "bench -w -c 1 datafile", "bench -c 100 -s 1000 -o 1 odd",
}

func TestBench(t *testing.T) {
	allowed := []difference{
		{lines: "bench empty", why: "qemu-img divides by zero", stdout: "Sending .*", stderr: "qemu-img: Failed request: the disk is empty", code: 1},
	}
	differential(t, sample(benchLines, allowed), allowed...)
}
