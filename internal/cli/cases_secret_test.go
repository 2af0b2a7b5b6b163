package cli

import (
	"strings"
	"testing"
)

// Command lines with secrets and encrypted images. The passphrase of all images
// is abc; S in a line is the secret that has it.

const withSecret = "--object secret,id=s,data=abc "

var secretLines = []string{
	// objects
	"info --object", "info --object secret q", "info --object '' q", "info --object secret,id=s q", "info --object secret,data=abc q", "info --object secret,id=s,data=abc q", "info --object secret,id=1,data=abc q", "info --object secret,id=s,data=abc,file=pass q",
	"info --object secret,id=s,file=missing q", "info --object secret,id=s,data=abc,foo=1 q", "info --object secret,id=s,data=abc --object secret,id=s,data=abc q", "info --object secret,id=s,data=*,format=base64 q", "info --object secret,id=s,file=bad64,format=base64 q",
	"info --object secret,id=s,data=abc,format=foo q", "info --object id=s,data=abc q", "info --object qom-type=secret,id=s,data=abc q", `info --object '{"qom-type":"secret","id":"s","data":"abc"}' q`, "info --object foo,id=s q", "info --object secret,id=s,data=abc,keyid=k q",
	"info --object secret,id=k,data=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=,format=base64 --object secret,id=s,data=abc,keyid=k q", "info --object secret,id=k,data=abc --object secret,id=s,data=abc,keyid=k,iv=AAAAAAAAAAAAAAAAAAAAAA== q",
	"info --object throttle-group,id=t q", "info --object throttle-group,id=t,x-iops-total=10,x-iops-total-max=20,x-iops-total-max-length=3,x-iops-size=512 q", "info --object throttle-group,id=t,limits.iops-total=foo q", "info --object throttle-group,id=t,x-iops-total=-1 q", "info --object throttle-group,id=t,limits.bps-read=-1 q",
	"info --object throttle-group,id=t,x-iops-total=10,x-iops-read=5 q", "info --object throttle-group,id=t,x-iops-total-max=10 q", "info --object throttle-group,id=t,x-iops-total=10,x-iops-total-max=5 q", "info --object throttle-group,id=t,x-iops-total=10,x-iops-total-max-length=5 q",
	"info --object throttle-group,id=t,x-iops-total=10,x-iops-total-max-length=0 q", "info --object throttle-group,id=t,x-iops-size=100 q", "info --object throttle-group,id=t,x-bps-total=1000000000000001 q", "info --object throttle-group,id=t,foo=1 q", "info --object throttle-group,id=t,limits.foo=1 q", "info --object throttle-group q",
	"info --object throttle-group,id=t --object throttle-group,id=t q", `info --object '{"qom-type":"throttle-group","id":"t","limits":{"iops-total":10}}' q`, `info --object '{"qom-type":"throttle-group","id":"t","limits":{"iops-total":"10"}}' q`, `info --object '{"qom-type":"throttle-group","id":"t","limits":3}' q`,
	`info --object '{"qom-type":"secret","id":3,"data":"x"}' q`, `info --object '{"qom-type":"secret","id":"s","data":null}' q`, `info --object '{"qom-type":"secret","id":"s","data":["a"]}' q`, `info --object '{"qom-type":3,"id":"s"}' q`, `info --object '{"qom-type":"secret","id":"s","data":"x","foo":3}' q`,
	`info --object '{"qom-type":"secret","id":"s","data":"x","loaded":"on"}' q`, `info --object '{"qom-type":"secret","id":"s","data":"x","loaded":true}' q`, `info --object '{"qom-type":"secret","id":"s"' q`, `info --object '{"qom-type":"secret","id":"s","data":"x"}{}' q`, `info --object '{"id" 3}' q`, `info --object '{"id":"s' q`,
	"info --object secret,id=s,data q", "info --object secret,id=s,loaded=on,data=x q", "info --object secret,id=s,loaded=foo,data=x q", "info --object secret,,x q", "info --object secret,id=s,data=a,=b q", "info --object secret,id=s,9=a q", "info --object secret,id=s,.x=a q", "info --object secret,id=s,file=dir q",
	"info --object secret,help", "info --object throttle-group,help q", "info --object help", "info --object secret,id=s,data=AAAAAAAAAAAAAAAAAAAAAA==,keyid= q", "compare --object secret,id=s q same", "compare --object secret,help q same",
	// look
	"info S --image-opts driver=luks,file.filename=lks,key-secret=s", `info S 'json:{"driver":"qcow2","file.filename":"luks","encrypt":{"format":"luks","key-secret":"s"}}'`,
	"info S luks", "info luksover", "info S --backing-chain luksover", "info S --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s", "info S --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=foo", "info --image-opts driver=qcow2,file.filename=luks,encrypt.format=aes",
	"check luks", "check S --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s", "check --object secret,id=s,data=abd --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s", "check --object secret,id=s,data= --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"check S --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=foo", "check S --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s,encrypt.format=luks", "check S --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s,encrypt.format=aes",
	"check S --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s,encrypt.format=foo", "check S --image-opts driver=qcow2,file.filename=q,encrypt.key-secret=s,encrypt.format=luks", "check S --image-opts driver=qcow2,file.filename=q,encrypt.key-secret=s", "check S --image-opts driver=qcow2,file.filename=aes,encrypt.key-secret=s,encrypt.format=luks",
	"check S --image-opts driver=qcow2,file.filename=luks,encrypt.format=luks", "check S --image-opts driver=qcow2,file.filename=luks,encrypt.foo=luks", "check S --image-opts driver=qcow2,file.filename=aes,encrypt.key-secret=s",
	"map S --output=json --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s", "map S --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s", "map S --output=json --image-opts driver=qcow2,file.filename=luksover,encrypt.key-secret=s,backing.encrypt.key-secret=s", "map S --output=json --image-opts driver=qcow2,file.filename=aes,encrypt.key-secret=s",
	"map S --output=json --image-opts driver=qcow2,file.filename=luksover,encrypt.key-secret=s", "map S --output=json --image-opts driver=qcow2,file.filename=luksover,backing.encrypt.key-secret=s",
	`map S --output=json 'json:{"driver":"qcow2","file.filename":"luks","encrypt.key-secret":"s"}'`, `map S --output=json 'json:{"driver":"qcow2","file":{"driver":"file","filename":"luks"},"encrypt":{"format":"luks","key-secret":"s"}}'`,
	"compare S --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s driver=qcow2,file.filename=luks,encrypt.key-secret=s", "compare S --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s driver=qcow2,file.filename=aes,encrypt.key-secret=s", "snapshot -l luks", "snapshot S -l --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	// make
	"create S -f qcow2 -o encryption=on,encrypt.key-secret=s new 1M", "create S -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 new 1M", "create S -f qcow2 -o encrypt.format=luks new 1M", "create S -f qcow2 -o encryption=on new 1M", "create S -f qcow2 -o encrypt.key-secret=s new 1M",
	"create S -f qcow2 -o encryption=on,encrypt.format=luks,encrypt.key-secret=s new 1M", "create S -f qcow2 -o encryption=off,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 new 1M", "create S -f qcow2 -o encryption=off,encrypt.key-secret=s new 1M", "create S -f qcow2 -o encryption=foo,encrypt.key-secret=s new 1M", "create S -f qcow2 -o encrypt.format=foo,encrypt.key-secret=s new 1M",
	"create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=foo new 1M", "create S -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s,encrypt.cipher-alg=aes-128 new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-alg=foo new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-mode=foo new 1M",
	"create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.ivgen-alg=foo new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.ivgen-hash-alg=foo new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.hash-alg=foo new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=foo new 1M",
	"create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=-1 new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=0 new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.foo=1 new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-mode=ctr,encrypt.iter-time=10 new 1M",
	"create S -f qcow2 -o compat=0.10,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 new 1M", "create S -f qcow2 -o compat=0.10,encrypt.format=aes,encrypt.key-secret=s new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,encrypt.hash-alg=sha512 new 1M",
	"create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.cipher-alg=twofish-256,encrypt.hash-alg=sha1 new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.cipher-alg=cast5-128,encrypt.cipher-mode=cbc new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.cipher-alg=cast5-128 new 1M",
	"create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.cipher-alg=aes-192 new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.cipher-alg=aes-192,encrypt.cipher-mode=cbc new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.cipher-mode=ecb,encrypt.ivgen-alg=plain new 1M",
	"create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.hash-alg=ripemd160 new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.hash-alg=md5 new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.ivgen-alg=essiv new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha1 new 1M",
	"create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,preallocation=metadata new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,cluster_size=512 new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,cluster_size=2M new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,data_file=newdf new 1M",
	"create S -f qcow2 -b luks -F qcow2 new", "create S -f qcow2 -b luks -F qcow2 new 1M", "create S -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 -b q -F qcow2 new 1M", "create S -f raw -o encrypt.format=luks,encrypt.key-secret=s new 1M",
	"convert S --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s -O raw new", "convert S --image-opts driver=qcow2,file.filename=luksover,encrypt.key-secret=s,backing.encrypt.key-secret=s -O qcow2 new", "convert S -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 q new", "convert S -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s q new",
	"convert S -c -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s q new", "convert S -O qcow2 -o encryption=on,encrypt.key-secret=s raw new", "convert S --image-opts driver=qcow2,file.filename=aes,encrypt.key-secret=s -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 new", "convert --object secret,id=s,file=pass --image-opts driver=qcow2,file.filename=aes,encrypt.key-secret=s -O raw new",
	"convert --object secret,id=s,file=pass2 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s -O raw new", "convert --object secret,id=s,file=pass64,format=base64 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s -O raw new", "convert S -n --image-opts --target-image-opts driver=raw,file.filename=raw driver=qcow2,file.filename=luks,encrypt.key-secret=s", "convert S -n --target-image-opts q driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"convert S -n -O qcow2 q luks", "convert S -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.cipher-mode=ctr q new", "convert S -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.cipher-alg=cast5-128,encrypt.cipher-mode=ctr q new",
	"measure S -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 q", "measure S -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 --size 1G", "measure S -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,cluster_size=512 --size 1G", "measure S -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.cipher-alg=aes-128,cluster_size=2M --size 1G",
	"measure S -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s q", "measure -O qcow2 -o encrypt.format=luks q", "measure -O qcow2 luks", "measure S -O qcow2 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s", "measure S -O qcow2 -o encrypt.format=luks,encrypt.key-secret=foo q", "measure S -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.cipher-alg=foo q",
	// change
	"snapshot S -c x --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s", "snapshot -c x luks", "resize S --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s 2M", "resize S --shrink --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s 64k", "resize S --preallocation=full --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s 2M",
	"amend S --object secret,id=n,data=new -o encrypt.new-secret=n --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=active --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=foo --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10,encrypt.keyslot=5 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=0 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=8 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=-1 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=x --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=active,encrypt.new-secret=n,encrypt.old-secret=s --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=active,encrypt.new-secret=zz --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=inactive --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=inactive,encrypt.keyslot=5 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=inactive,encrypt.keyslot=9 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=inactive,encrypt.keyslot=0 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=inactive,encrypt.keyslot=0,encrypt.new-secret=n --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=inactive,encrypt.keyslot=0,encrypt.iter-time=10 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=inactive,encrypt.keyslot=0,encrypt.old-secret=n --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=inactive,encrypt.keyslot=3,encrypt.old-secret=s --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=inactive,encrypt.old-secret=n --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.state=inactive,encrypt.old-secret=s --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new --force -o encrypt.state=inactive,encrypt.old-secret=s --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new --force -o encrypt.state=inactive,encrypt.keyslot=0 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new --force -o encrypt.state=active,encrypt.keyslot=0,encrypt.new-secret=s,encrypt.iter-time=10 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.cipher-alg=aes-128 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.format=luks --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o encrypt.key-secret=s --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o size=2M,encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o compat=0.10,encrypt.state=inactive,encrypt.keyslot=0 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S --object secret,id=n,data=new -o refcount_bits=64 --image-opts driver=qcow2,file.filename=luks,encrypt.key-secret=s",
	"amend S -o encrypt.state=active,encrypt.new-secret=s --image-opts driver=qcow2,file.filename=aes,encrypt.key-secret=s", "amend S -o encrypt.state=active,encrypt.new-secret=s q", "amend S -o encrypt.state=active,encrypt.new-secret=foo q", "amend -o encrypt.state=active luks",
	"commit S --image-opts driver=qcow2,file.filename=luksover,encrypt.key-secret=s,backing.encrypt.key-secret=s", "commit S --image-opts driver=qcow2,file.filename=luksover,encrypt.key-secret=s",
	"rebase S -b q -F qcow2 --image-opts driver=qcow2,file.filename=luksover,encrypt.key-secret=s,backing.encrypt.key-secret=s", "rebase S -b '' --image-opts driver=qcow2,file.filename=luksover,encrypt.key-secret=s,backing.encrypt.key-secret=s",
	"rebase S -b q -F qcow2 --image-opts driver=qcow2,file.filename=luksover,backing.encrypt.key-secret=s", "rebase S -b q -F qcow2 --image-opts driver=qcow2,file.filename=luksover,encrypt.key-secret=s", "rebase S -u -b q -F qcow2 --image-opts driver=qcow2,file.filename=luksover,encrypt.key-secret=s", "rebase -u -b q -F qcow2 luksover",
	"rebase S -b aes -F qcow2 --image-opts driver=qcow2,file.filename=luksover,encrypt.key-secret=s,backing.encrypt.key-secret=s", `rebase S -F qcow2 -b 'json:{"driver":"qcow2","file.filename":"aes","encrypt.key-secret":"s"}' --image-opts driver=qcow2,file.filename=luksover,encrypt.key-secret=s,backing.encrypt.key-secret=s`,
	// encrypted raw disks
	`info lks`,
	`info --output=json lks`,
	`info -f luks lks`,
	`info -f luks q`,
	`check lks`,
	`check S --image-opts driver=luks,file.filename=lks,key-secret=s`,
	`map S --image-opts driver=luks,file.filename=lks,key-secret=s`,
	`map S --output=json --image-opts driver=luks,file.filename=lks,key-secret=s`,
	`map lks`,
	`compare S --image-opts driver=luks,file.filename=lks,key-secret=s driver=luks,file.filename=lks,key-secret=s`,
	`convert S --image-opts driver=luks,file.filename=lks,key-secret=s -O raw new`,
	`convert S --image-opts driver=luks,file.filename=lks,key-secret=s -O qcow2 new`,
	`convert S -O luks -o key-secret=s,iter-time=10 q new`,
	`convert S -O luks -o key-secret=s,iter-time=10 -c q new`,
	`convert S -O luks q new`,
	`convert S -n --target-image-opts raw driver=luks,file.filename=lks,key-secret=s`,
	`create S -f luks -o key-secret=s,iter-time=10 new 1M`,
	`create S -f luks -o key-secret=s,iter-time=10,cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha512 new 1M`,
	`create S -f luks -o key-secret=s,iter-time=10 new`,
	`create -f luks new 1M`,
	`create S -f luks -o key-secret=foo new 1M`,
	`create S -f luks -o key-secret=s,cipher-alg=foo new 1M`,
	`create S -f luks -o key-secret=s,foo=1 new 1M`,
	`create S -f luks -o key-secret=s,iter-time=10,preallocation=full new 1M`,
	`create S -f luks -o key-secret=s,iter-time=10,preallocation=metadata new 1M`,
	`create S -f luks -o key-secret=s,iter-time=10 -b q -F qcow2 new`,
	`create S -f luks -o key-secret=s,iter-time=10 new 1000`,
	`create -f luks -o help`,
	`create -f luks -o help new`,
	`measure S -O luks -o key-secret=s,iter-time=10 --size 1M`,
	`measure -O luks --size 1M`,
	`measure S -O luks -o key-secret=s,iter-time=10 q`,
	`resize S --image-opts driver=luks,file.filename=lks,key-secret=s 2M`,
	`resize S --shrink --image-opts driver=luks,file.filename=lks,key-secret=s 64k`,
	`resize S --image-opts driver=luks,file.filename=lks,key-secret=s 64k`,
	`resize S --preallocation=full --image-opts driver=luks,file.filename=lks,key-secret=s 2M`,
	`resize S --preallocation=metadata --image-opts driver=luks,file.filename=lks,key-secret=s 2M`,
	`snapshot S -l --image-opts driver=luks,file.filename=lks,key-secret=s`,
	`snapshot S -c x --image-opts driver=luks,file.filename=lks,key-secret=s`,
	`commit S --image-opts driver=luks,file.filename=lks,key-secret=s`,
	`amend S --object secret,id=n,data=new -o state=active,new-secret=n,iter-time=10 --image-opts driver=luks,file.filename=lks,key-secret=s`,
	`amend S --object secret,id=n,data=new -o new-secret=n --image-opts driver=luks,file.filename=lks,key-secret=s`,
	`amend S -o state=inactive,keyslot=0 --image-opts driver=luks,file.filename=lks,key-secret=s`,
	`amend S --force -o state=inactive,keyslot=1 --image-opts driver=luks,file.filename=lks,key-secret=s`,
	`amend S -o encrypt.state=inactive --image-opts driver=luks,file.filename=lks,key-secret=s`,
	`amend -f luks -o help`,
	`amend S -o size=2M --image-opts driver=luks,file.filename=lks,key-secret=s`,
	`info S --image-opts driver=luks,file.filename=lks,foo=1`,
	`check --object secret,id=s,data=abd --image-opts driver=luks,file.filename=lks,key-secret=s`,
	`dd S --image-opts if=driver=luks,file.filename=lks,key-secret=s of=new -O raw`,
	`create -f qcow2 -b lks -F luks new`,
	`create S -f qcow2 -b 'json:{"driver":"luks","file.filename":"lks","key-secret":"s"}' -F luks new`,
}

func TestSecrets(t *testing.T) {
	allowed := []difference{
		{lines: `info --object '{"id":"s' q`, why: "a message quotes no passphrase", stderr: "qemu-img: JSON parse error, stray '…'"},
		{lines: "info --object help", why: "there are fewer objects", stdout: "List of user creatable objects:\n  secret\n  throttle-group"},
		{lines: "rebase .* -b q .*luksover,encrypt.key-secret=s,backing.encrypt.key-secret=s", why: "the new name is looked for where the image is", stderr: nothing, code: success, images: true},
		{lines: "rebase .* -b aes .*luksover,encrypt.key-secret=s,backing.encrypt.key-secret=s", why: "the new name is looked for where the image is", stderr: "(?s).*new backing file 'aes'.*"},
		{lines: "info .*file.filename=luks,encrypt.format=aes", why: "info describes what is there", stdout: "image: luks\n.*", stderr: nothing, code: success},
		{lines: "create .*encrypt.iter-time=-1 .*", why: "QEMU takes it for a large number", stderr: "qemu-img: new: Parameter 'iter-time' must not be negative"},
		{lines: "create .*aes-192,encrypt.cipher-mode=cbc .*", why: "QEMU fails an assertion", stderr: "qemu-img: new: QEMU has no key material of 96000 bytes: it is no multiple of 512", code: 1},
		{lines: "create .*-f luks -o key-secret=s,.* new .*|resize .* 2M", why: "new space holds noise", images: true},
		{lines: "create .*encrypt.format=luks.*,preallocation=metadata .*", why: "QEMU's new space reads as noise, ours as zeros", images: true},
	}
	lines := sample(secretLines, allowed)
	for i, line := range lines {
		lines[i] = strings.Replace(line, " S ", " "+withSecret, 1)
	}
	differential(t, lines, allowed...)
}

// The shortest time for a passphrase is that of the fewest iterations.
func TestShortestIterTime(t *testing.T) {
	t.Chdir(t.TempDir())
	create := []string{qemuImg, "create", "--object", "secret,id=s,data=abc", "-f", "luks", "-o", "key-secret=s,iter-time=0", "new", "1M"}
	if r := run(t, create...); r.code != 0 {
		t.Fatal(r)
	}
	if r := run(t, qemuImg, "info", "new"); !strings.Contains(r.stdout, "iters: 1000\n") {
		t.Error(r)
	}
}
