package cli

import "testing"

var qedLines = []string{
	"create -f qed new", "create -f qed new 1M", "create -f qed new 0", "create -f qed new 1", "create -f qed new 513", "create -f qed new 1000000", "create -f qed new 64T", "create -f qed new 65T", "create -f qed new 3E",
	"create -f qed -o cluster_size=4k new 64G", "create -f qed -o cluster_size=4k new 17G", "create -f qed -o cluster_size=4k,table_size=1 new 1G", "create -f qed -o cluster_size=4k,table_size=1 new 1025M",
	"create -f qed -o cluster_size=4k,table_size=16 new 1T", "create -f qed -o cluster_size=2k new 1M", "create -f qed -o cluster_size=64M new 1M", "create -f qed -o cluster_size=128M new 1M", "create -f qed -o cluster_size=5000 new 1M",
	"create -f qed -o cluster_size=0 new 1M", "create -f qed -o cluster_size=-1 new 1M", "create -f qed -o cluster_size=4G new 1M", "create -f qed -o cluster_size=x new 1M", "create -f qed -o cluster_size= new 1M", "create -f qed -o cluster_size new 1M",
	"create -f qed -o table_size=0 new 1M", "create -f qed -o table_size=1 new 1M", "create -f qed -o table_size=2 new 1M", "create -f qed -o table_size=3 new 1M", "create -f qed -o table_size=16 new 1M", "create -f qed -o table_size=32 new 1M", "create -f qed -o table_size=1k new 1M",
	"create -f qed -o table_size=-1 new 1M", "create -f qed -o table_size=x new 1M", "create -f qed -o cluster_size=1M,table_size=16 new 1M", "create -f qed -o preallocation=off new 1M", "create -f qed -o preallocation=metadata new 1M", "create -f qed -o preallocation=full new 1M",
	"create -f qed -o preallocation=foo new 1M", "create -f qed -o nocow=on new 1M", "create -f qed -o foo=1 new 1M", "create -f qed -o help", "create -f qed -o help new", "create -f qed -o size=2M new 1M", "create -f qed -q new 1M",
	"create -f qed -b q -F qcow2 new", "create -f qed -b raw -F raw new", "create -f qed -b raw new", "create -f qed -b qed -F qed new 10M", "create -f qed -o backing_file=raw,backing_fmt=raw new", "create -f qed -b missing -F raw new 1M", "create -f qed -u -b missing -F raw new 1M",
	"create -f qed -u -b missing new 1M", "create -f qed -F raw new 1M", "create -f qcow2 -b qedover -F qed new", "create -f qed -b odd -F raw new", "create -f qed -b zero -F qcow2 new", "create -f qed -o cluster_size=4k -b qed -F qed new",
	"info qed", "info -f qed qed", "info --output=json qed", "info qedsmall", "info qedover", "info --output=json qedover", "info --backing-chain qedover2", "info --backing-chain overqed", "info qedq", "info qedorphan", "info --backing-chain qedorphan", "info qedzero", "info qedopen",
	"info --output=json qedopen", "info qedunknown", "info qedauto", "info qedleaky", "info qedcut", "info qedbad", "info qedbadl1", "info qednotable", "info --output=json qednotable", "info qednohead", "check qednohead", "info -f qed q", "info -f qed raw", "info -f qed empty", "info -f qcow2 qed", "info -U qed", "info qedone",
	"map qed", "map --output=json qed", "map qedsmall", "map --output=json qedsmall", "map qedover", "map --output=json qedover", "map --output=json qedover2", "map overqed", "map --output=json overqed", "map --output=json qedq", "map qedbad", "map --output=json qedbad", "map qedbadl1",
	"map qedcut", "map qedopen", "map qedzero", "map qedorphan", "map -s 1M -l 100k --output=json qedsmall",
	"check qed", "check -f qed qed", "check --output=json qed", "check qedsmall", "check --output=json qedsmall", "check qedover", "check qedzero", "check qedopen", "check qedleaky", "check --output=json qedleaky", "check qedbad", "check --output=json qedbad", "check qeddouble", "check qedbadl1",
	"check qedcut", "check qedunknown", "check -q qedbad", "check qedbadopen", "check qedorphan", "check -p qed",
	"check -r leaks qed", "check -r all qed", "check -r leaks qedleaky", "check -r all qedleaky", "check -r all --output=json qedleaky", "check -r leaks qedbad", "check -r all qedbad", "check -r all --output=json qedbad", "check -r all qeddouble", "check -r all qedbadl1", "check -r leaks qedbadl1",
	"check -r all qedopen", "check -r all qedbadopen", "check -r leaks qedbadopen", "check -r all qedcut",
	"compare qed q", "compare qed same", "compare -s qed q", "compare qedsmall qed", "compare qedover qedover2", "compare overqed qedover2", "compare qed raw", "compare qedbad qed", "compare -f qed qed q",
	"convert -O raw qed new", "convert -O qcow2 qed new", "convert -O qed q new", "convert -O qed raw new", "convert -O qed qedover2 new", "convert -O qed overqed new", "convert -O raw overqed new", "convert -O qed -o cluster_size=4k,table_size=2 qedover2 new", "convert -c -O qed q new", "convert -c -O qcow2 qed new",
	"convert -O qed -o table_size=3 q new", "convert -O qed -B raw -F raw qedover new", "convert -O qcow2 -B raw -F raw qedover new", "convert -O qed -B qedover -F qed qedover2 new", "convert -O qed -S 0 q new", "convert -O qed -S 64k q new", "convert -n -O qed q qed", "convert -n -O qed q2 qedover",
	"convert -n -O qed q2 qedsmall", "convert -n --target-is-zero -O qed q2 qedzero", "convert -O qed -p q new", "convert -W -O qed q new", "convert -O raw qedbad new", "convert --salvage -O raw qedbad new", "convert -O raw qedopen new", "convert -O raw qedcut new", "convert -O qed odd new", "convert -O qed empty new",
	"convert -O qed -o preallocation=metadata q new", "convert -C -O qed raw new", "convert -O raw qed q new", "convert -O qed compressed new",
	"rebase -u -b q -F qcow2 qedover", "rebase -b q -F qcow2 qedover", "rebase -b '' qedover", "rebase -u -b '' qedover", "rebase -b raw -F raw qed", "rebase -f qed -b q2 -F qcow2 qedq", "rebase -u -b missing -F raw qedover", "rebase -u -b missing -F foo qedover", "rebase -u -b raw qedover", "rebase -p -b q -F qcow2 qedover2",
	"rebase -b qed -F qed over2", "rebase -b raw -F raw overqed",
	"commit qedover", "commit qedq", "commit qedover2", "commit -d qedover2", "commit -b raw qedover2", "commit overqed", "commit qed", "commit -b qedover overqed",
	"resize qed 5M", "resize qed 4M", "resize qed +1000", "resize qed 3M", "resize --shrink qed 3M", "resize -f qed qed 1T", "resize qed 65T", "resize qedover 9M", "resize qedover 8M", "resize --preallocation=full qed 5M", "resize --preallocation=metadata qed 5M", "resize qedzero 1M", "resize qedopen 5M",
	"snapshot -l qed", "snapshot -c x qed", "snapshot -l -q qed",
}

func TestQED(t *testing.T) {
	const broken = "QED (data cluster|L2 table) offset .* is invalid.*"
	allowed := []difference{
		{lines: "create -f qed -o table_size=1k new 1M", why: "1k is a number like any other", stderr: "qemu-img: new: QED table size must be within range .*"},
		{lines: "info qedopen", why: "what is not closed is said to be so", stdout: ".*cleanly shut down: no\n"},
		{lines: "info --output=json qedopen", why: "what is not closed is said to be so", stdout: ".*\"dirty-flag\": true.*"},
		{lines: "info qedone", why: "tables of one cluster work", stdout: "image: qedone\nfile format: qed.*", stderr: nothing, code: success},
		{lines: "(map|compare|convert) (.* )?(qedbad|qedcut)( .*)?", why: "one sentence says what is broken", stderr: "qemu-img: .*" + broken},
		{lines: "(info|check) qednohead", why: "one sentence says what is broken", stderr: "qemu-img: Could not open 'qednohead': QED header is 64 bytes long, the file ends after 32\n"},
		{lines: "check .*(qedleaky|qedbad|qeddouble|qedbadl1|qedbadopen)", why: "findings are named", stderr: "((ERROR|\\d+ clusters? ).*\n)+"},
		{lines: "check .*qedcut", why: "findings are named", stderr: "((ERROR|\\d+ clusters? ).*\n)+", images: true},
		{lines: "commit (qedover|qedq|qedover2)", why: "an overlay whose data is in the image below is made empty", images: true},
	}
	differential(t, sample(qedLines, allowed), allowed...)
}
