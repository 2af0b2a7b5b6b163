package cli

import "testing"

var commitLines = []string{
	"commit", "commit over over2", "commit --foo", "commit -b", "commit raw", "commit -f raw raw", "commit q", "commit over", "commit -f raw over", "commit missing", "commit orphan", "commit dir", "commit ''",
	"commit -b raw over", "commit -b over over2", "commit -b raw over2", "commit -b q over2", "commit -b missing over", "commit -b over over", "commit -b '' over", "commit -b ./raw over",
	"commit -d over", "commit -p over", "commit -q over", "commit -p -q over", "commit -t foo over", "commit -t none over", "commit -t unsafe over", "commit -t writethrough over2", "commit -r x over", "commit -r 0 over", "commit -r 100M over",
	"commit short3", "commit over2", "commit -d over2", "commit -d -b raw over2", "commit -b raw short3", "commit aes", "commit corrupt", "commit dir/over", "commit fileover", "commit jsonover", "commit guess", "commit misnamed", "commit loop",
	"commit --image-opts driver=qcow2,file.filename=over", "commit --image-opts over", "commit -f qcow2 --image-opts over", "commit -U over", "commit compressed", "commit badl1", "commit snapsover", "commit dfover", "commit ontop", "commit oldover", "commit extover",
	`commit 'json:{"driver":"qcow2","file.filename":"over"}'`, "commit --object foo over", "commit -f foo over", "commit -f qcow2 raw", "commit zeroover",
}

func TestCommit(t *testing.T) {
	allowed := []difference{
		noObjects, noEncryption,
		{lines: "commit (short3|dir/over|fileover|jsonover|guess|zeroover)", why: "what is empty is left alone", images: true},
		{lines: "commit loop", why: "what is wrong is told", stderr: "qemu-img: Could not open 'loop': Could not open backing file: Backing file 'loop' creates an infinite loop."},
	}
	differential(t, sample(commitLines, allowed), allowed...)
}
