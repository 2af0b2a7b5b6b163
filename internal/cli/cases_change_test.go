package cli

import "testing"

var commitLines = []string{
	"commit", "commit over over2", "commit --foo", "commit -b", "commit raw", "commit -f raw raw", "commit q", "commit over", "commit -f raw over", "commit missing", "commit orphan", "commit dir", "commit ''",
	"commit -b raw over", "commit -b over over2", "commit -b raw over2", "commit -b q over2", "commit -b missing over", "commit -b over over", "commit -b '' over", "commit -b ./raw over", "commit -b ../raw dir/over", "commit -b missing -p over", "commit -p raw",
	"commit -d over", "commit -p over", "commit -q over", "commit -p -q over", "commit -t foo over", "commit -t none over", "commit -t unsafe over", "commit -t writethrough over2", "commit -r x over", "commit -r 0 over", "commit -r 100M over",
	"commit short3", "commit over2", "commit -d over2", "commit -d -b raw over2", "commit -b raw short3", "commit aes", "commit corrupt", "commit dir/over", "commit fileover", "commit jsonover", "commit guess", "commit misnamed", "commit loop",
	"commit --image-opts driver=qcow2,file.filename=over", "commit --image-opts over", "commit -f qcow2 --image-opts over", "commit -U over", "commit compressed", "commit badl1", "commit snapsover", "commit dfover", "commit ontop", "commit oldover", "commit extover",
	`commit 'json:{"driver":"qcow2","file.filename":"over"}'`, "commit --object foo over", "commit -f foo over", "commit -f qcow2 raw", "commit zeroover",
}

func TestCommit(t *testing.T) {
	allowed := []difference{
		{lines: "commit (short3|dir/over|fileover|jsonover|guess|zeroover)", why: "what is empty is left alone", images: true},
		{lines: "commit loop", why: "what is wrong is told", stderr: "qemu-img: Could not open 'loop': Could not open backing file: Backing file 'loop' creates an infinite loop."},
	}
	differential(t, sample(commitLines, allowed), allowed...)
}

var snapshotLines = []string{
	"snapshot -a one snapl1", "snapshot -a one snapbig", "snapshot -d one snapl1", "snapshot -d one snapbig", "snapshot -c x manysnaps", "snapshot -c x farcluster", "snapshot -c x fartable",
	"snapshot", "snapshot q", "snapshot -l", "snapshot -c", "snapshot -l q q2", "snapshot --foo q", "snapshot -f qcow2 -l q", "snapshot -l -c x q", "snapshot -c x -c y q", "snapshot -a x -d x q", "snapshot missing", "snapshot dir", "snapshot raw", "snapshot text", "snapshot -U q",
	"snapshot -l q", "snapshot -l snaps", "snapshot -l snapsover", "snapshot -l raw", "snapshot -l missing", "snapshot -l dir", "snapshot -l ''", "snapshot -l orphan", "snapshot -l corrupt", "snapshot -l unknown", "snapshot -l badl1", "snapshot -l datafile", "snapshot -l zero", "snapshot -q -l snaps", "snapshot -U -l snaps",
	"snapshot --image-opts -l driver=qcow2,file.filename=snaps", "snapshot --image-opts -l snaps", "snapshot --image-opts -c x driver=qcow2,file.filename=q", "snapshot --object foo -l q", "snapshot -l truncated",
	"snapshot -c x q", "snapshot -c '' q", "snapshot -c x raw", "snapshot -c x missing", "snapshot -c x old", "snapshot -c x ext", "snapshot -c x datafile", "snapshot -c x zero", "snapshot -c x over2", "snapshot -c x compressed", "snapshot -c x zstd", "snapshot -c first snaps", "snapshot -c x -U q", "snapshot -q -c x q", "snapshot -c x corrupt", "snapshot -c x onebit", "snapshot -c x orphan", "snapshot -c x text",
	"snapshot -c " + long + " q", "snapshot -c x resized",
	"snapshot -a first snaps", "snapshot -a 1 snaps", "snapshot -a 2 snaps", "snapshot -a 'a second one' snaps", "snapshot -a nope snaps", "snapshot -a x raw", "snapshot -a x missing", "snapshot -a x datafile", "snapshot -a small resized", "snapshot -a 2 resized", "snapshot -a large resized", "snapshot -a x q", "snapshot -a '' q", "snapshot -q -a first snaps",
	"snapshot -a 1 amb", "snapshot -a 2 amb", "snapshot -a dup amb", "snapshot -a 4 amb", "snapshot -a snapshot.id=1 amb", "snapshot -d 1 amb", "snapshot -d 2 amb", "snapshot -d dup amb", "snapshot -c 4 amb", "snapshot -c dup amb",
	"snapshot -d first snaps", "snapshot -d 1 snaps", "snapshot -d 'a second one' snaps", "snapshot -d nope snaps", "snapshot -d x raw", "snapshot -d x datafile", "snapshot -d small resized", "snapshot -d 2 resized", "snapshot -d x q", "snapshot -q -d first snaps", "snapshot -U -d first snaps",
}

// long is a name that is longer than qemu-img keeps.
const long = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"

func TestSnapshot(t *testing.T) {
	allowed := []difference{
		{lines: "snapshot -c x far.*", why: "space has been set aside for it", images: true},
		{lines: "snapshot -c x corrupt", why: "its tables would be written over data that counts as free", stderr: "qemu-img: Could not create snapshot 'x': -11 .*\n", code: 1, images: true},
	}
	differential(t, sample(snapshotLines, allowed), allowed...)
}

var resizeLines = []string{
	"resize", "resize q", "resize 1M", "resize q 5M 6M", "resize --foo q 5M", "resize -U q 5M", "resize missing 5M", "resize dir 5M", "resize '' 5M", "resize -f foo q 5M", "resize -f raw q 5M", "resize --object foo q 5M", "resize orphan 5M", "resize corrupt 5M", "resize unknown 5M", "resize badl1 5M", "resize aes 2M",
	"resize q x", "resize q ''", "resize q +", "resize q ++1M", "resize q +-1M", "resize q 1.5k", "resize q 4194400", "resize q 0", "resize q +0", "resize q 1E", "resize q 9E", "resize q 16E", "resize q 0x500k", "resize q -- -1M", "resize q -1M", "resize --shrink q -1M", "resize --shrink q -4M", "resize --shrink q -5M", "resize --shrink q 1000",
	"resize q 5M", "resize q +1M", "resize -q q 5M", "resize --quiet q 5M", "resize -q q -- -1M", "resize q 4M", "resize -f qcow2 q 100G", "resize --image-opts driver=qcow2,file.filename=q 5M", "resize --image-opts q 5M", "resize -f qcow2 --image-opts q 5M", "resize q 1M", "resize --shrink q 1M", "resize --shrink q 3000k", "resize --shrink q 512", "resize --shrink q 5M",
	"resize --shrink compressed 1500k", "resize --shrink zstd 1500k", "resize --shrink old 1500k", "resize --shrink ext 1025k", "resize --shrink over 1100k", "resize --shrink over2 64k", "resize over 9M", "resize over2 20M", "resize short3 2M", "resize short3 1025k", "resize short3 10M", "resize --shrink short3 70k", "resize dir/over 5M",
	"resize --preallocation=foo q 5M", "resize --preallocation=off q 5M", "resize --preallocation=metadata q 5M", "resize --preallocation=falloc q 5M", "resize --preallocation=full q 5M", "resize --preallocation=full q 4M", "resize --preallocation=full --shrink q 1M", "resize --preallocation metadata over 9M", "resize --preallocation=falloc short3 3M", "resize --preallocation=metadata ext 5M",
	"resize --preallocation=falloc old 5M", "resize --preallocation=metadata longer 5000k",
	"resize resized 4M", "resize --shrink resized 1M", "resize --shrink snaps 1M", "resize snaps 3M", "resize oldsnaps 2M", "resize --shrink oldsnaps 512k", "resize oldover 4M", "resize --shrink oldover 512k", "resize zero 1M", "resize onebit 2M", "resize --shrink onebit 64k",
	"resize raw 4M", "resize raw 9223372036854775807", "resize -f raw raw 9223372036854775296", "resize q 9223372036854775807", "resize q 9223372036854775296", "resize -f raw raw 4M", "resize raw 3M", "resize raw 1M", "resize -f raw --shrink raw 1M", "resize -f raw --preallocation=metadata raw 4M", "resize -f raw --preallocation=falloc raw 4M", "resize -f raw --preallocation=full raw 4M", "resize -f raw raw 1000", "resize -f raw --shrink raw 1000", "resize -f raw odd 4000", "resize -f raw raw 8E", "resize -f raw text 1M", "resize empty 1M",
	"resize datafile 2M", "resize --shrink datafile 256k", "resize --preallocation=metadata datafile 2M", "resize lost 2M", "resize dfraw 2M", "resize --preallocation=full dfraw 2M", "resize --shrink dfraw 512k",
}

func TestResize(t *testing.T) {
	allowed := []difference{
		{lines: "resize (q \\+0|q 4M|oldover 4M)", why: "where nothing changes nothing is written", images: true},
		{lines: "resize badl1 5M", why: "tables that are broken are not built on", stdout: nothing, stderr: ".*L2 table offset 0x40200 unaligned.*", code: 1, images: true},
	}
	differential(t, sample(resizeLines, allowed), allowed...)
}

var bitmapLines = []string{
	"bitmap", "bitmap bm", "bitmap bm one", "bitmap --foo bm one", "bitmap --add bm", "bitmap --add bm one two", "bitmap --add bm one", "bitmap --add bm new", "bitmap --add q new", "bitmap --add raw new", "bitmap --add old new", "bitmap --add missing new", "bitmap --add dir new", "bitmap --add text new", "bitmap --add corrupt new", "bitmap --add zero new", "bitmap --add datafile new", "bitmap --add orphan new",
	"bitmap --add -g 4k bm new", "bitmap --add -g 3k bm new", "bitmap --add -g 256 bm new", "bitmap --add -g 4G bm new", "bitmap --add -g 2G bm new", "bitmap --add -g x bm new", "bitmap --add -g 0 bm new", "bitmap --add --granularity=64k bm new", "bitmap --clear -g 4k bm one", "bitmap --add bm ''", "bitmap --add bm " + long + long + long + long,
	"bitmap --remove bm one", "bitmap --remove bm nope", "bitmap --remove q nope", "bitmap --remove raw nope", "bitmap --remove inuse one", "bitmap --remove --add bm one", "bitmap --add --remove bm new", "bitmap --add --disable bm new", "bitmap --add --add bm new",
	"bitmap --clear bm one", "bitmap --clear bm nope", "bitmap --clear inuse one", "bitmap --clear inuse usable", "bitmap --clear raw one", "bitmap --enable bm two", "bitmap --enable bm one", "bitmap --enable inuse one", "bitmap --disable bm one", "bitmap --disable bm two", "bitmap --disable inuse one", "bitmap --disable bm nope",
	"bitmap --merge one bm two", "bitmap --merge one bm one", "bitmap --merge nope bm one", "bitmap --merge one bm nope", "bitmap --merge one inuse usable", "bitmap --merge usable inuse one", "bitmap --merge", "bitmap --merge one --merge three bm two", "bitmap --merge three bm one", "bitmap --add --merge one bm new", "bitmap --add -g 2M --merge one --merge three --disable bm new",
	"bitmap --merge one -b bm2 bm two", "bitmap --merge one -b bm -F qcow2 inuse usable", "bitmap --merge one -b missing bm two", "bitmap --merge one -b missing -F foo bm two", "bitmap --merge one -b raw bm two", "bitmap --merge one -b raw -F raw bm two", "bitmap --merge one -b bmover -F qcow2 bm two", "bitmap --merge nope -b bmover -F qcow2 bm two", "bitmap --merge one -F qcow2 bm two", "bitmap --add -b bmover bm new", "bitmap --merge one -b bm -F raw bm two", "bitmap --merge one -b bm bmover one",
	"bitmap -f qcow2 --add bm new", "bitmap -f raw --add bm new", "bitmap --image-opts --add driver=qcow2,file.filename=bm new", "bitmap --image-opts -f qcow2 --add bm new", "bitmap --object foo --add bm new", "bitmap -U --add bm new", "bitmap --add forgotten new", "bitmap --remove forgotten one",
	"resize bm 8M", "resize --shrink bm 2M", "resize inuse 8M", "resize --shrink bm 512", "snapshot -c x bm", "snapshot -a first bmsnap", "snapshot -d first bmsnap", "snapshot -l bmsnap", "commit bmover", "commit -d bmover",
}

// noForgotten: that bitmaps are out of date is not told of images that are not to
// have any.
var noForgotten = difference{lines: ".* forgotten( .*)?", why: "bitmaps that another program has made worthless are not there", stderr: "(qemu-img: Operation remove on bitmap one failed: Dirty bitmap 'one' not found)?"}

func TestBitmap(t *testing.T) {
	allowed := []difference{
		noForgotten,
		{lines: "bitmap --merge one -b bm -F raw bm two", why: "a file that is being changed is not read", stderr: "qemu-img: Could not open 'bm': Failed to get shared .*"},
		{lines: "commit -d bmover", why: "what has not been written to is left alone", images: true},
	}
	differential(t, sample(bitmapLines, allowed), allowed...)
}

var amendLines = []string{
	"amend -o compat=0.10 snapl1", "amend -o compat=0.10 snapbig",
	"amend", "amend q", "amend --foo q", "amend -o", "amend -o help", "amend -f qcow2 -o help", "amend -o help q", "amend -o help,size=1M q", "amend -o help missing", "amend -f raw -o help", "amend -o help raw", "amend -f foo -o size=1M q", "amend -o size=5M", "amend -o size=5M q q2", "amend -o '' q", "amend -o , q", "amend -U -o size=5M q",
	"amend -o size=5M missing", "amend -o size=5M dir", "amend -o size=5M orphan", "amend -o size=5M corrupt", "amend -o size=5M unknown", "amend -o size=5M raw", "amend -f raw -o size=5M raw", "amend -o size=5M text", "amend -o compat=0.10 aes",
	"amend -o foo=1 q", "amend -o cluster_size=4k q", "amend -o cluster_size q", "amend -o preallocation q", "amend -o size=2M dfraw", "amend -o nocow=on q",
	"amend -o compat=0.10 q", "amend -o compat=1.1 q", "amend -o compat=0.9 q", "amend -o compat= q", "amend -o compat=1.1 old", "amend -o compat=0.10 old", "amend -o compat=1.1 oldsnaps", "amend -o compat=1.1 oldover", "amend -o compat=1.1 zero", "amend -o compat=0.10 zero",
	"amend -o compat=0.10 ext", "amend -o compat=0.10 datafile", "amend -o compat=0.10 zstd", "amend -o compat=0.10 compressed", "amend -o compat=0.10 over", "amend -o compat=0.10 snaps", "amend -o compat=0.10 snapsover", "amend -o compat=0.10 resized", "amend -o compat=0.10,size=3M resized", "amend -o compat=0.10 onebit", "amend -o compat=0.10,refcount_bits=16 onebit", "amend -o compat=0.10,lazy_refcounts=on q", "amend -o compat=0.10,refcount_bits=8 q", "amend -o compat=1.1,lazy_refcounts=on,refcount_bits=64 old",
	"amend -o refcount_bits=1 q", "amend -o refcount_bits=64 q", "amend -o refcount_bits=16 q", "amend -o refcount_bits=7 q", "amend -o refcount_bits=0 q", "amend -o refcount_bits=x q", "amend -o refcount_bits=8 old", "amend -o refcount_bits=1 snaps", "amend -o refcount_bits=2 snaps", "amend -o refcount_bits=64 onebit", "amend -o refcount_bits=1 compressed", "amend -o refcount_bits=8 ext", "amend -o refcount_bits=8 datafile",
	"amend -o lazy_refcounts=on q", "amend -o nolazy_refcounts ext", "amend -o lazy_refcounts=off ext", "amend -o lazy_refcounts=foo q", "amend -o lazy_refcounts=on old", "amend -o lazy_refcounts=off old",
	"amend -o size=5M q", "amend -o size=3M q", "amend -o size=0 q", "amend -o size=1000 q", "amend -o size=x q", "amend -o size=8191P q", "amend -o size=2M oldsnaps", "amend -o size=9M over2", "amend -o size=0x5M q", "amend -o size=5M -o size=6M q",
	"amend -o compat=0.10 bm", "amend -o refcount_bits=64 bm", "amend -o size=8M bm", "amend -o backing_file=raw over", "amend -o backing_file=raw,backing_fmt=raw over", "amend -o backing_file=q,backing_fmt=qcow2 over", "amend -o backing_file= over", "amend -o backing_file=q,backing_fmt=qcow2 q", "amend -o backing_file= q",
	"amend -o data_file=df datafile", "amend -o data_file=other datafile", "amend -o data_file= datafile", "amend -o data_file=df q", "amend -o data_file_raw=on datafile", "amend -o data_file_raw=off datafile", "amend -o data_file_raw=on q", "amend -o data_file_raw=off q", "amend -o data_file_raw=on dfraw", "amend -o data_file_raw=off dfraw",
	"amend -o encrypt.state=active q", "amend -o encrypt.keyslot=1 q", "amend -o encrypt.keyslot=x q", "amend -o encrypt.foo=1 q",
	"amend -p -o compat=0.10 q", "amend -p -o refcount_bits=64 q", "amend -p -o compat=0.9 q", "amend -q -p -o compat=0.10 q", "amend -p -o foo=1 q", "amend -t foo -o compat=0.10 q", "amend -t unsafe -o compat=0.10 q", "amend --force -o compat=0.10 q",
	"amend --image-opts -o compat=0.10 driver=qcow2,file.filename=q", "amend -f qcow2 --image-opts -o compat=0.10 q", "amend --object foo -o compat=0.10 q",
}

func TestAmend(t *testing.T) {
	allowed := []difference{
		{lines: "amend -o compat=0.10 snap(l1|big)", why: "what the disk has now is version 2 by then", images: true},
		{lines: "amend -o compat=0.10 bm", why: "it would make bitmaps worthless", stderr: ".*Persistent dirty bitmaps prevent downgrade of image", code: 1},
		{lines: "amend -o (compat=1.1 q|compat=0.10 old|compat=0.10 zero|refcount_bits=16 q|lazy_refcounts=off old|size=0 q|backing_file=raw,backing_fmt=raw over|data_file_raw=on dfraw)", why: "where nothing changes nothing is written", images: true},
	}
	differential(t, sample(amendLines, allowed), allowed...)
}
