package cli

import "testing"

var ddLines = []string{
	"dd", "dd if=q", "dd of=o", "dd if=q of=o", "dd -f qcow2 -O raw if=q of=o", "dd -O qcow2 if=q of=o", "dd -O qcow2 bs=1M if=q of=o", "dd bs=1M count=2 if=q of=o", "dd bs=1M skip=1 if=q of=o", "dd bs=1M skip=1 count=1 if=q of=o", "dd bs=1M skip=5 if=q of=o", "dd bs=1M skip=4 if=q of=o", "dd bs=1M count=100 if=q of=o", "dd bs=1M count=3 skip=1 -O qcow2 if=q of=o",
	"dd bs=0 if=q of=o", "dd bs=x if=q of=o", "dd bs=-1 if=q of=o", "dd count=0 if=q of=o", "dd count=x if=q of=o", "dd skip=x if=q of=o", "dd foo=1 if=q of=o", "dd foo if=q of=o", "dd if=q of=o extra", "dd if= of=o", "dd if=missing of=o", "dd if=q of=", "dd if=q of=nodir/o", "dd -O foo if=q of=o", "dd -O vpc if=missing of=o", "dd -f raw if=q of=o", "dd -f foo if=q of=o", "dd -U if=q of=o",
	"dd --image-opts if=driver=qcow2,file.filename=q of=o", "dd --image-opts if=q of=o", "dd -q if=q of=o", "dd if=odd of=o", "dd if=odd bs=1000 of=o", "dd if=odd bs=1000 count=1 of=o", "dd if=odd -O qcow2 bs=1000 count=1 of=o", "dd bs=513 if=q count=3 of=o", "dd bs=513 skip=3 if=q of=o", "dd if=q if=q2 of=o", "dd bs=1M bs=512 count=3 if=q of=o", "dd bs=3G if=q of=o", "dd bs=2147483647 if=q of=o", "dd bs=2147483648 if=q of=o", "dd bs=1k count=1E if=q of=o", "dd bs=1k skip=9E if=q of=o", "dd bs=1k count=9E if=q of=o",
	"dd bs=1M,count=1 if=q of=o", "dd bs=1b if=q count=1b of=o", "dd bs=1w if=q of=o", "dd bs=0x10 count=3 if=q of=o", "dd if=q of=q", "dd bs=1.5k count=1 if=q of=o", "dd -n if=q of=o", "dd -o foo if=q of=o", "dd --object foo if=q of=o", "dd -Oqcow2 if=over of=o", "dd if=empty of=o", "dd -f qcow2 -O qcow2 if=raw of=o", "dd if=badl1 of=o", "dd if=orphan of=o", "dd if=aes of=o", "dd IF=q of=o", "dd conv=notrunc if=q of=o", "dd seek=1 if=q of=o",
	"dd -O qcow2 if=compressed of=o bs=1M skip=1", "dd -O qcow2 if=over2 of=raw2 bs=100k skip=3 count=50", "dd if=q of=text", "dd if=short of=o", "dd if=zero of=o", "dd -O qcow2 if=zero of=o", "dd if=datafile skip=100 of=o", "dd -O vpc if=q of=o", "dd if=q of=dir", "dd if", "dd of=o of=o2 if=q", "dd if=q of=./o -O qed", "dd bs=70k skip=1 -O qcow2 if=snaps of=o",
}

func TestDD(t *testing.T) {
	allowed := []difference{
		{lines: "dd bs=1M skip=1 count=1 if=q of=o|dd .*count=3 skip=1.*|dd .*skip=3 count=50", why: "count= counts from where skip= leads to, not from the beginning", images: true},
	}
	differential(t, sample(ddLines, allowed), allowed...)
}
