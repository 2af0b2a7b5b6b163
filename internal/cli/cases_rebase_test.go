package cli

import "testing"

var rebaseLines = []string{
	"rebase", "rebase over", "rebase --foo", "rebase -b raw over", "rebase -b raw -F raw over", "rebase -b q over", "rebase -b q -F qcow2 over", "rebase -b q -F raw over", "rebase -b missing -F qcow2 over", "rebase -p -b missing -F qcow2 over", "rebase -p -t foo -b q over", "rebase -p -b q raw", "rebase -p -b q -F qcow2 -f raw raw", "rebase -p -f raw -b q raw",
	"rebase -u -b missing -F qcow2 over", "rebase -u -b missing over", "rebase -u over", "rebase --force -b q -F qcow2 over", "rebase --format qcow2 -b q over", "rebase -F raw over", "rebase -u -F raw over", "rebase -b X over", "rebase -b q -F foo over", "rebase -u -b q -F foo over",
	"rebase -b q -F qcow2 raw", "rebase -u -b q -F qcow2 raw", "rebase -f raw -b q -F qcow2 over", "rebase -b over2 -F qcow2 over", "rebase -b over -F qcow2 over", "rebase -p -b q -F qcow2 over", "rebase -p -u -b q -F qcow2 over", "rebase -p -q -b q -F qcow2 over",
	"rebase -t foo -b q over", "rebase -T foo -b q over", "rebase -t unsafe -T none -b q -F qcow2 over", "rebase -b q -F qcow2 q2", "rebase -b raw -F raw q", "rebase -b raw -F raw q3", "rebase -b raw -F raw old", "rebase -b over -F qcow2 ext", "rebase -b over2 -F qcow2 datafile", "rebase -b raw -F raw compressed", "rebase -b q2 -F qcow2 q", "rebase -b raw -F raw orphan", "rebase -u -b raw -F raw orphan", "rebase -b raw -F raw aes", "rebase -b q -F qcow2 over over2", "rebase -U -b q -F qcow2 over",
	"rebase -b raw -F raw over2", "rebase -b raw -F raw dir/over", "rebase -b ../raw -F raw dir/over", "rebase -b ../q3 -F qcow2 dir/over", "rebase -u -b nbd:foo -F raw over", "rebase -b q -F qcow2 datafile", "rebase -b json:{} -F raw over", "rebase -b q -F qcow2 snapsover", "rebase -o a -b q over",
	"rebase -b q -F qcow2 missing", "rebase -b q -F qcow2 dir", "rebase -b dir -F raw over", "rebase --image-opts -b q -F qcow2 driver=qcow2,file.filename=over", "rebase -q -b q -F qcow2 over", "rebase -u -b q -F qcow2 corrupt", "rebase -u -b q -F qcow2 lost", "rebase -b over2 -F qcow2 ontop", "rebase -b longer2 -F qcow2 ontop",
	"rebase -b '' over", "rebase -b '' over2", "rebase -u -b '' over", "rebase -u -b '' -F raw over", "rebase -b '' -F raw over", "rebase -b '' q", "rebase -p -b '' over", "rebase -b q3 -F qcow2 oldover", "rebase -b '' oldover", "rebase -b q3 -F qcow2 extover", "rebase -b '' extover", "rebase -b raw -F raw dfover", "rebase -b '' dfover",
	"rebase -b nosuch:f -F raw over", "rebase -b empty -F qcow2 over", "rebase -b empty -F raw over", "rebase -b snapsover -F qcow2 snapsover", "rebase -b zero -F qcow2 short3", "rebase -b q -F qcow2 zeroover", "rebase -u -b loop -F qcow2 loop", "rebase -b q -F qcow2 compressed", "rebase -b compressed -F qcow2 q3", "rebase -b zstd -F qcow2 snapsover",
	"rebase -u -b badmagic -F qcow2 over", "rebase -b badmagic -F qcow2 over", "rebase -b badl1 -F qcow2 q3", "rebase --object foo -b q over", "rebase -b file:q -F qcow2 over", `rebase -b 'json:{"driver":"qcow2","file.filename":"q"}' -F qcow2 over`, "rebase -u -b 'a b,c=d' -F raw over", "rebase -b q -F vmdk over", "rebase -u -b q -F vmdk over",
}

func TestRebase(t *testing.T) {
	allowed := []difference{

		{
			lines: "rebase -b raw -F raw (over|dfover)|rebase -b ../raw -F raw dir/over|rebase -b q -F qcow2 snapsover|rebase -b '' q|rebase -b q3 -F qcow2 oldover|rebase -u -b loop -F qcow2 loop",
			why:   "a name that is there already is not written", images: true,
		},
		{lines: "rebase -b raw -F raw old", why: "what read as zero does so still", images: true},
		{lines: "rebase -b json:{} .*", why: "said as for every image", stderr: "qemu-img: Could not open new backing file 'json:{}': Must specify either driver or file"},
		{lines: "rebase -b q -F vmdk over", why: "no VMDK yet", stderr: ".*'vmdk' is not supported"},
	}
	differential(t, sample(rebaseLines, allowed), allowed...)
}
