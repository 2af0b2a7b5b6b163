package cli

import "testing"

var measureLines = []string{
	"measure", "measure a b", "measure --size 1G", "measure --size 1G -O raw", "measure --size x", "measure --size 1G q", "measure -f qcow2 --size 1G", "measure -l x --size 1", "measure --image-opts --size 1", "measure -f qcow2", "measure --output=xml",
	"measure --size 1G -O foo", "measure --size 1G -O vpc", "measure --size 1G -O qed", "measure --size 1G -O vmdk", "measure --size 1G -O file", "measure -O nbd q", "measure -O foo missing", "measure -O foo -o help missing", "measure --size 1 --output json", "measure --size 1 --output=xml",
	"measure -O qcow2 q", "measure -O raw q", "measure q", "measure -O qcow2 over", "measure -O qcow2 over2", "measure -O qcow2 short3", "measure -O qcow2 -o backing_file=raw,backing_fmt=raw over", "measure -O qcow2 -o backing_file=raw over", "measure -O qcow2 -o backing_file=missing,backing_fmt=qcow2 over", "measure -O qcow2 -o backing_file=missing --size 1G",
	"measure -O qcow2 compressed", "measure -O qcow2 zstd", "measure -O qcow2 raw", "measure -O qcow2 -o cluster_size=4k raw", "measure -O qcow2 -o cluster_size=2M raw", "measure -O qcow2 -o cluster_size=512 raw", "measure -O raw odd", "measure -O qcow2 odd", "measure -O qcow2 short", "measure -O qcow2 empty", "measure -O qcow2 text", "measure -O qcow2 datafile", "measure -O raw datafile",
	"measure -O qcow2 -l first snaps", "measure -O qcow2 -l nope snaps", "measure -l first raw", "measure -O qcow2 -l 1 snaps", "measure -l snapshot.name=first -O qcow2 snaps", "measure -l snapshot.foo=first snaps", "measure -O qcow2 --output=json snaps", "measure -O qcow2 --output=json raw", "measure -O qcow2 -l 2 amb", "measure -O qcow2 -l snapshot.id amb", "measure -O qcow2 -l small resized", "measure -O qcow2 resized",
	"measure -f raw -O qcow2 q", "measure -O qcow2 ext", "measure -O qcow2 zero", "measure -O qcow2 missing", "measure -O qcow2 old", "measure -O qcow2 aes", "measure -U -O qcow2 q", "measure -q q", "measure --object foo q", "measure -o help", "measure -O qcow2 -o foo=1 q", "measure -o foo=1 q", "measure -O raw -o foo=1 --size 1",
	"measure -O qcow2 -o size=5M q", "measure -O qcow2 -o size=5M --size 3M", "measure -O qcow2 -o size=5M", "measure -O qcow2 -o size=x --size 1", "measure --size 9E -O qcow2", "measure --size 1E -O qcow2", "measure --size 15E", "measure --size -1", "measure -O qcow2 --size 64P", "measure -O qcow2 --size 32P", "measure -O qcow2 --size 128T -o cluster_size=512",
	"measure -O qcow2 -o preallocation=full q", "measure -O qcow2 -o preallocation=falloc over", "measure -O qcow2 -o preallocation=metadata over", "measure -O raw -o preallocation=full q", "measure -O qcow2 --size 1G -o preallocation=full", "measure -O qcow2 -o preallocation=foo q",
	"measure -O qcow2 --size 0", "measure -O qcow2 --size 1", "measure -O qcow2 --size 10G", "measure -O qcow2 --size 1T", "measure -O qcow2 --size 3T -o cluster_size=512", "measure -O qcow2 --size 3T -o cluster_size=4k,refcount_bits=64", "measure -O qcow2 --size 63T -o cluster_size=2M,refcount_bits=1", "measure -O qcow2 --size 5G -o extended_l2=on", "measure -O qcow2 --size 5G -o extended_l2=on,cluster_size=16k", "measure -O qcow2 --size 2049T -o cluster_size=2M", "measure -O qcow2 --size 1000000000",
	"measure -O qcow2 -o compat=0.10 q", "measure -O qcow2 -o compat=0.10 --size 3G", "measure -O qcow2 -o data_file=d --size 1G", "measure -O qcow2 -o data_file=d,data_file_raw=on q", "measure -O qcow2 -o lazy_refcounts=on --size 3M", "measure -O qcow2 -o compression_type=zstd --size 3M",
	"measure -O qcow2 -o compat=0.10,refcount_bits=1 q", "measure -O qcow2 -o extended_l2=on,cluster_size=512 q", "measure -O qcow2 -o compat=0.10,extended_l2=on q", "measure -O qcow2 -o compat=5 q", "measure -O qcow2 -o refcount_bits=3 q", "measure -O qcow2 -o compression_type=foo q", "measure -O qcow2 -o data_file_raw=on q", "measure -O qcow2 -o backing_fmt=raw q", "measure -O qcow2 -o cluster_size=4M --size 1",
	"measure -O qcow2 badl1", "measure -O qcow2 truncated", "measure -O qcow2 corrupt", "measure -O qcow2 orphan", "measure -O qcow2 dir", "measure ''", "measure --image-opts driver=qcow2,file.filename=q", "measure --image-opts -f qcow2 q", "measure --image-opts -O qcow2 driver=qcow2,file.filename=q", "measure -O qcow2 lost", "measure --size",
	"measure --image-opts", "measure -o ,", "measure -l snapshot.foo=bar", "measure --output foo", "measure -O qcow2 --size 2P", "measure -O qcow2 --size 7E", "measure -O qcow2 --output=json --size 64G",
	"measure -O qcow2 bm", "measure -O qcow2 -o cluster_size=512 bm", "measure -O qcow2 -o compat=0.10 bm", "measure -O raw bm", "measure -O qcow2 --output=json bm", "measure -O qcow2 inuse", "measure -O qcow2 bmover", "measure -O qcow2 bm2",
}

func TestMeasure(t *testing.T) {
	allowed := []difference{
		{lines: "measure .*-l small resized", why: "a snapshot is as large as the disk was", stdout: "required size: 589824\nfully allocated size: 1376256\nbitmaps size: 0"},
		{lines: "measure (-q q|--size)", why: "said as by all commands", stdout: nothing, stderr: "qemu-img: (unrecognized|missing argument for) option '.*'\nTry 'qemu-img --help' for more information", code: 1},
		{
			lines: "measure .*(-o data_file_raw=on|backing_fmt=raw|compression_type=foo|extended_l2=on|preallocation=foo|refcount_bits=1|compat=5) q",
			why:   "what can't be created is not measured either", stdout: nothing, stderr: "qemu-img: .*", code: 1,
		},
	}
	differential(t, sample(measureLines, allowed), allowed...)
}
