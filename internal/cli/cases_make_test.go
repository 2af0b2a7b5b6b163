package cli

import "testing"

var createLines = []string{
	"create a b c", "create o 1M x", "create o foo x",
	"create", "create --foo", "create -f", "create new", "create -f raw new", "create new 1M", "create -f raw new 1M", "create -f qcow2 new 1M", "create -f qcow2 new", "create -f foo new 1M",
	"create new 1M 2M", "create -q -f qcow2 new 1M", "create -fqcow2 new 1M", "create new -f qcow2 1M", "create '' 1M", "create -f qcow2 '' 1M", "create -f qcow2 dir 1M", "create -f raw dir 1M",
	"create -f qcow2 nodir/new 1M", "create -f raw nodir/new 1M", "create -f qcow2 dir/new 1M", "create -f qcow2 / 1M", "create -f qcow2 q 1M", "create -f raw q 1M", "create -f raw raw 512", "create -f qcow2 link 1M",
	"create -f qcow2 dangling 1M", "create -f qcow2 foo:bar 1M", "create -f qcow2 json:bar 1M", "create -f qcow2 file:bar 1M", "create -f qcow2 ./foo:bar 1M", `create -f qcow2 'a b,c=d' 1M`,
	// sizes
	"create -f raw new 0", "create -f raw new 1", "create -f raw new 513", "create -f qcow2 new 513", "create -f qcow2 new 0", "create -f raw new 1.5k", "create -f raw new 1.5", "create -f raw new x", "create -f raw new ''",
	"create -f raw new 0x10k", "create -f raw new 8E", "create -f raw -- new -5", "create -f qcow2 new 64T", "create -f qcow2 new 3E", "create -f qcow2 -o cluster_size=512 new 64T", "create -f qcow2 -o cluster_size=2M new 64T",
	"create -f qcow2 -o size=2M new", "create -f qcow2 -o size=2M new 1M", "create -f qcow2 -o size=1M,size=2M new", "create -f raw -o size=3M new", "create -f raw -o size=x new", "create -f raw -o size=-5 new", "create -f raw -o size=16E new",
	// options
	"create -f qcow2 -o foo=1 new 1M", "create -f qcow2 -o foo new 1M", "create -f raw -o foo=1 new 1M", "create -f qcow2 -o cluster_size new 1M", "create -f qcow2 -o cluster_size= new 1M", "create -f qcow2 -o cluster_size=abc new 1M",
	"create -f qcow2 -o cluster_size=-1 new 1M", "create -f qcow2 -o cluster_size=3k new 1M", "create -f qcow2 -o cluster_size=256 new 1M", "create -f qcow2 -o cluster_size=4M new 1M", "create -f qcow2 -o cluster_size=0 new 1M",
	"create -f qcow2 -o cluster_size=16E new 1M", "create -f qcow2 -o cluster_size=1.5k new 1M", "create -f qcow2 -o cluster_size=0x10k new 1M", "create -f qcow2 -o cluster_size=512 new 1M", "create -f qcow2 -o cluster_size=2M new 1M",
	"create -f qcow2 -o cluster_size=4k,cluster_size=8k new 1M", "create -f qcow2 -o cluster_size=4k -o lazy_refcounts=on new 1M", "create -f qcow2 -o lazy_refcounts new 1M", "create -f qcow2 -o nolazy_refcounts new 1M",
	"create -f qcow2 -o lazy_refcounts=foo new 1M", "create -f qcow2 -o lazy_refcounts=yes new 1M", "create -f qcow2 -o lazy_refcounts=1 new 1M", "create -f qcow2 -o lazy_refcounts= new 1M",
	"create -f qcow2 -o compat=foo new 1M", "create -f qcow2 -o compat=v2 new 1M", "create -f qcow2 -o compat=v3 new 1M", "create -f qcow2 -o compat=0.10 new 1M", "create -f qcow2 -o compat=1.1 new 1M", "create -f qcow2 -o compat= new 1M",
	"create -f qcow2 -o compat=0.10,lazy_refcounts=on new 1M", "create -f qcow2 -o compat=0.10,extended_l2=on,refcount_bits=3 new 1M", "create -f qcow2 -o data_file_raw=on,backing_fmt=raw new 1M", "create -f qcow2 -o compat=0.10,lazy_refcounts=on,backing_fmt=raw new 1M", "create -f qcow2 -o compat=0.10,compression_type=zstd,data_file_raw=on new 1M", "create -f qcow2 -o compat=0.10,refcount_bits=8 new 1M", "create -f qcow2 -o compat=0.10,compression_type=zstd new 1M", "create -f qcow2 -o compat=0.10,extended_l2=on new 1M",
	"create -f qcow2 -o refcount_bits=1 new 1M", "create -f qcow2 -o refcount_bits=64 new 1M", "create -f qcow2 -o refcount_bits=7 new 1M", "create -f qcow2 -o refcount_bits=128 new 1M", "create -f qcow2 -o refcount_bits=x new 1M",
	"create -f qcow2 -o refcount_bits=0 new 1M", "create -f qcow2 -o refcount_bits=010 new 1M", "create -f qcow2 -o refcount_bits=-1 new 1M", "create -f qcow2 -o refcount_bits=99999999999999999999 new 1M", "create -f qcow2 -o refcount_bits= new 1M",
	"create -f qcow2 -o compression_type=zstd new 1M", "create -f qcow2 -o compression_type=foo new 1M", "create -f qcow2 -o extended_l2=on new 1M", "create -f qcow2 -o extended_l2=on,cluster_size=8k new 1M",
	"create -f qcow2 -o extended_l2=on,cluster_size=16k new 1M", "create -f qcow2 -o preallocation=foo new 1M", "create -f qcow2 -o preallocation=off new 1M", "create -f qcow2 -o preallocation=metadata new 1M", "create -f qcow2 -o preallocation=falloc new 1M",
	"create -f qcow2 -o preallocation=full new 1M", "create -f raw -o preallocation=off new 1M", "create -f raw -o preallocation=metadata new 1M", "create -f raw -o preallocation=falloc new 1M", "create -f raw -o preallocation=full new 1M", "create -f raw -o preallocation=foo new 1M",
	"create -f qcow2 -o data_file=newdf new 1M", "create -f qcow2 -o data_file=newdf dir/new 1M", "create -f qcow2 -o data_file=newdf,data_file_raw=on new 1M", "create -f qcow2 -o data_file=newdf,compat=0.10 new 1M", "create -f qcow2 -o data_file_raw=on new 1M", "create -f qcow2 -o data_file=raw new 1M",
	`create -f qcow2 -o 'data_file=a,,b c=d' new 1M`, "create -f qcow2 -o , new 1M", "create -f qcow2 -o '' new 1M", "create -f qcow2 -o cluster_size=4k, new 1M", "create -f qcow2 -o cluster_size=4k,, new 1M", "create -f qcow2 -o =1 new 1M",
	"create -f qcow2 -o ,a new 1M", "create -f qcow2 -o lazy_refcounts,,foo new 1M", "create -f raw -o nosize new", "create -f qcow2 -o encryption=off new 1M", "create -f qcow2 -o encrypt.format=luks new 1M", "create --object foo new 1M", "create --object secret,id=s,data=x new 1M",
	"create -f raw -o nocow=on new 1M", "create -f raw -o nocow=x new 1M", "create -f qcow2 -o nocow=off,extent_size_hint=4k,preallocation=off new 1M", "create -f bochs new 1M", "create -f bochs -o help", "create -f bochs nbd://x", "create -f raw -o extent_size_hint=0 new 1M",
	"create -o help", "create -f qcow2 -o help", "create -f qcow2 -o ?", "create -f raw -o help new", "create -f foo -o help", "create -f qcow2 -o size=1M,help", "create -f qcow2 -o help,foo=1", "create -f qcow2 -o help=1 new 1M", "create -o help foo:bar",
	// backing files
	"create -f qcow2 -b q new", "create -f qcow2 -b q -F '' new", "create -f qcow2 -b q -o backing_fmt= new", "create -f qcow2 -u -b q -F '' new 1M", "create -f qcow2 -b q -F qcow2 new", "create -f qcow2 -b raw -F raw new", "create -f qcow2 -b raw -F raw new 1M", "create -f qcow2 -b raw new", "create -f qcow2 -b raw -F foo new", "create -f qcow2 -b raw -F qcow2 new",
	"create -f qcow2 -b missing -F qcow2 new", "create -f qcow2 -b missing -F qcow2 new 1M", "create -f qcow2 -u -b missing -F qcow2 new 1M", "create -f qcow2 -u -b missing -F qcow2 new", "create -f qcow2 -u -b missing new 1M", "create -f qcow2 -F qcow2 new 1M",
	"create -f qcow2 -b new -F qcow2 new 1M", "create -f qcow2 -b ./new -F qcow2 new 1M", "create -f raw -b raw -F raw new 1M", "create -f raw -F raw new 1M", "create -f qcow2 -b raw -F raw -o backing_file=q new", "create -f qcow2 -F raw -o backing_file=raw new",
	"create -f qcow2 -o backing_file=q,backing_fmt=qcow2 new", "create -f qcow2 -b q -o backing_fmt=qcow2 new", "create -f qcow2 -b '' new 1M", "create -f qcow2 -o backing_file= new 1M", "create -f qcow2 -o backing_file new 1M", "create -f qcow2 -b ../raw -F raw dir/new",
	"create -f qcow2 -b raw -F raw dir/new", "create -f qcow2 -b over2 -F qcow2 new", "create -f qcow2 -b orphan -F qcow2 new", "create -f qcow2 -b q -F qcow2 -o preallocation=metadata new", "create -f qcow2 -b q -F qcow2 -o preallocation=metadata,extended_l2=on new",
	"create -f qcow2 -b q -F qcow2 -o data_file=newdf,data_file_raw=on new", "create -f qcow2 -u -b x,y -F raw new 1M", "create -f qcow2 -b q -F qcow2 q2", "create -f qcow2 -b dir -F raw new", "create -f qcow2 -b odd -F raw new", "create -f qcow2 -u -b q -F foo new 1M",
	"create -f qcow2 -b file:raw -F raw new", `create -f qcow2 -b 'json:{"driver":"raw","file.filename":"raw"}' -F raw new`, "create -f qcow2 -b foo:bar -F raw new 1M", "create -f qcow2 -b zero -F qcow2 new", "create -f qcow2 -b orphan -F qcow2 -u new 1M",
	"create -f qcow2 -o compat=0.10 -b q -F qcow2 new", "create -f qcow2 -o cluster_size=4k -b compressed -F qcow2 new 10M",
}

func TestCreate(t *testing.T) {
	allowed := []difference{
		{lines: "create .*=0x10k new 1M", why: "a warning is given once", stderr: "qemu-img: warning: Using a multiplier suffix [^\n]*"},
	}
	differential(t, sample(createLines, allowed), allowed...)
}

var convertLines = []string{
	"convert", "convert q", "convert --foo", "convert -f", "convert -cZ q new", "convert -c -Z q new", "convert q new -f", "convert q -cf",
	"convert q new", "convert -O raw q new", "convert -Oraw q new", "convert -O qcow2 q new", "convert -O qcow2 raw new", "convert -f raw -O qcow2 raw new", "convert -f raw -O qcow2 q new", "convert -f qcow2 raw new", "convert -f foo q new", "convert -O foo q new", "convert -O foo missing new",
	"convert missing new", "convert q dir", "convert q nodir/new", "convert -O qcow2 q nodir/new", "convert q /", "convert dir new", "convert q ''", "convert '' new", "convert q q", "convert -O qcow2 q q", "convert raw raw", "convert -O qcow2 over raw", "convert q link", "convert q q2",
	"convert -O qcow2 q2 q3", "convert q foo:bar", "convert q file:bar", "convert q dangling", "convert orphan new", "convert misnamed new", "convert badl1 new", "convert badmagic new", "convert truncated new", "convert corrupt new", "convert unknown new", "convert zero new", "convert -O qcow2 zero new", "convert empty new",
	"convert -O qcow2 empty new", "convert -O qcow2 odd new", "convert odd new", "convert old new", "convert ext new", "convert datafile new", "convert lost new", "convert compressed new", "convert zstd new", "convert over new", "convert over2 new", "convert short3 new", "convert dir/over new", "convert -O qcow2 over2 new",
	"convert -O qcow2 -o compat=0.10 q new", "convert -O qcow2 -o cluster_size=4k q new", "convert -O qcow2 -o cluster_size=2M,extended_l2=on over2 new", "convert -O qcow2 -o data_file=newdf q new", "convert -O qcow2 -o data_file=newdf q dir/new", "convert -O qcow2 -o data_file=newdf,data_file_raw=on q new", "convert -O qcow2 -o refcount_bits=1,cluster_size=512 q new",
	"convert -O qcow2 -o preallocation=metadata q new", "convert -O qcow2 -o preallocation=full q new", "convert -o preallocation=full q new", "convert -o preallocation=falloc q new", "convert -O qcow2 -o lazy_refcounts=on q new",
	"convert -c q new", "convert -c -O raw q new", "convert -c -O qcow2 q new", "convert -c -O qcow2 -o compression_type=zstd q new", "convert -c -O qcow2 -o cluster_size=4k q new", "convert -c -O qcow2 -o cluster_size=2M over2 new", "convert -c -O qcow2 -o compat=0.10 q new",
	"convert -o foo=1 q new", "convert -O qcow2 -o foo=1 q new", "convert -O qcow2 -o cluster_size=3k q new", "convert -o size=100M q new", "convert -O qcow2 -o size=1M q new", "convert -W -o , q new", "convert -O qcow2 -o backing_fmt=qcow2 q new",
	"convert -O qcow2 -o help", "convert -o help", "convert -O foo -o help", "convert -O qcow2 -o help q new",
	"convert q q2 new", "convert -O qcow2 q raw odd new", "convert -O qcow2 q missing new", "convert zero q new",
	"convert -S x q new", "convert -S 100 q new", "convert -S -1 q new", "convert -S 32M q new", "convert -S 0 q new", "convert -S 0 -O qcow2 q new", "convert -S 1024 q new", "convert -S 1536 q new", "convert -S 64k -O qcow2 q new", "convert -S 0x200k q new", "convert -c -S 0 -O qcow2 q new",
	"convert -m 0 q new", "convert -m 17 q new", "convert -m x q new", "convert -m 1 q new", "convert -m 16 -W -O qcow2 q new", "convert -W q new", "convert -W -c -O qcow2 q new", "convert -r x q new", "convert -r 0 q new", "convert -r 100M q new",
	"convert -t foo q new", "convert -T foo q new", "convert -t none -T none q new", "convert -t writeback q new", "convert -t writethrough -O qcow2 q new", "convert -t directsync q new", "convert -t unsafe q new", "convert -t foo missing new", "convert -T foo -t foo q new", "convert -T foo missing new",
	"convert -p q new", "convert -p -O qcow2 over2 new", "convert -q q new", "convert -p -q q new", "convert -p missing new", "convert -p q nodir/new", "convert -p -t foo q new", "convert -p -T foo q new", "convert -n -B over -O raw q raw", "convert -n -B raw -O qcow2 guess dir/over", "convert -U q new", "convert --salvage q new", "convert --salvage -O qcow2 over2 new", "convert -C q new", "convert -C -O qcow2 raw new", "convert -C -c q new", "convert -C -S 4k q new", "convert -C --salvage q new",
	"convert -n q missing", "convert -n q raw", "convert -n q2 raw", "convert -n q longer", "convert -n -O qcow2 q q2", "convert -n -O qcow2 q q3", "convert -n -O qcow2 q longer2", "convert -n -O qcow2 longer q", "convert -n -O qcow2 raw over", "convert -n -O qcow2 q raw", "convert -n -o a=b q q2", "convert -n -c q raw",
	"convert -n -c -O qcow2 q q2", "convert -n -p -O qcow2 q q2", "convert -n -O qcow2 q q", "convert -n q dir", "convert --target-is-zero q new", "convert --target-is-zero -n -O qcow2 zstd q2", "convert --target-is-zero -n -O qcow2 raw over", "convert --target-image-opts q driver=raw,file.filename=new",
	"convert --target-image-opts -n q driver=qcow2,file.filename=q2", "convert --target-image-opts -n -O raw q driver=raw,file.filename=raw", "convert --target-image-opts -n q q2", "convert --image-opts driver=qcow2,file.filename=q new", "convert --image-opts -f qcow2 driver=qcow2,file.filename=q new",
	"convert -B raw -O qcow2 over new", "convert -B raw -F raw -O qcow2 over new", "convert -B over -F qcow2 -O qcow2 over2 new", "convert -B missing -F qcow2 -O qcow2 over new", "convert -B raw -F raw over new", "convert -F raw q new", "convert -B raw -F raw -O qcow2 q q2 new", "convert -B q2 -F qcow2 -O qcow2 q new",
	"convert -B raw -F qcow2 -O qcow2 over new", "convert -O qcow2 -o backing_file=raw,backing_fmt=raw over new", "convert -O qcow2 -B ../raw -F raw over dir/new", "convert -O qcow2 -c -B raw -F raw over new", "convert -B raw -F raw -O qcow2 over raw", "convert -B raw -F raw -O qcow2 short3 new",
	"convert -O qcow2 -o backing_file=raw over new", "convert -n -O qcow2 q q", "convert -n --target-image-opts q driver=qcow2,file.filename=q", "convert -O qcow2 q file:q", "convert -O qcow2 q ./link",
	"convert -l one snapl1 new", "convert -l one snapbig new",
	"convert -l foo q new", "convert -l first snaps new", "convert -l 1 snaps new", "convert -l 'a second one' snaps new", "convert -l snapshot.id=2 snaps new", "convert -l snapshot.name=first snaps new", "convert -l snapshot.id=1,snapshot.name=first snaps new", "convert -l snapshot.id=1,snapshot.name=b snaps new",
	"convert -l 2 amb new", "convert -l dup amb new", "convert -l 4 amb new", "convert -l snapshot.id=2 amb new", "convert -l snapshot.name=2 amb new", "convert -l snapshot.name=dup amb new", "convert -l snapshot.name=dup,snapshot.id=4 amb new", "convert -l snapshot.id=4,snapshot.name=1 amb new", "convert -l 1 -l 2 amb new", "convert -l snapshot.id amb new", "convert -l snapshot.id= amb new", "convert -l snapshot.id=1, amb new", "convert -l snapshot.id=1,snapshot.id=2 amb new",
	"convert -l snapshot.name=nope snaps new", "convert -l snapshot.foo=1 snaps new", "convert -l 1 raw new", "convert -l 1 snaps snaps new", "convert -l '' snaps new", "convert -O qcow2 -l 2 snaps new", "convert snaps new", "convert -O qcow2 snaps new",
	"convert aes new", "convert -O bochs q new", "convert -O bochs q nbd://x", "convert --object foo q new",
	"convert --bitmaps q new", "convert --bitmaps raw new", "convert --bitmaps -O qcow2 raw new", "convert --bitmaps -O qcow2 q new", "convert --bitmaps -O qcow2 old new", "convert --bitmaps -O raw bm new", "convert --bitmaps -O qcow2 bm new", "convert --bitmaps -O qcow2 -o compat=0.10 bm new", "convert --bitmaps -O qcow2 -o cluster_size=512 bm new",
	"convert --bitmaps -O qcow2 bm bm2 new", "convert --bitmaps -O qcow2 inuse new", "convert --bitmaps --skip-broken-bitmaps -O qcow2 inuse new", "convert --skip-broken-bitmaps -O qcow2 inuse new", "convert --bitmaps --skip-broken-bitmaps -O qcow2 bm new", "convert --bitmaps -O qcow2 bmover new", "convert --bitmaps -O qcow2 -B bm -F qcow2 bmover new",
	"convert --bitmaps -n -O qcow2 bm q", "convert --bitmaps -n -O qcow2 bm2 bm", "convert --bitmaps -n -O qcow2 bm2 q", "convert --bitmaps -n -O qcow2 bm raw", "convert --bitmaps -n -O qcow2 bm short3", "convert -c -O qcow2 -o data_file=newdf q new", "convert --bitmaps -n -O raw bm raw", "convert --bitmaps -l first -O qcow2 bmsnap new", "convert --bitmaps -O qcow2 forgotten new", "convert --bitmaps -c -O qcow2 bm new", "convert --bitmaps --image-opts -O qcow2 driver=qcow2,file.filename=bm new",
	"convert --bitmaps -O qcow2 -o data_file=newdf bm new", "convert -O qcow2 bm new",
}

func TestConvert(t *testing.T) {
	allowed := []difference{
		noForgotten,
		{lines: "convert -n -c .*q2", why: "a cluster that has data can be written compressed", stderr: nothing, code: success, images: true},
		{
			lines: "convert --target-is-zero .*over", why: "what lies below the target would show through", code: 1,
			stderr: "qemu-img: Cannot use --target-is-zero when the destination image has a backing file",
		},
		{lines: "convert -B raw -F raw -O qcow2 short3 new", why: "what lies between is copied", images: true},
	}
	differential(t, sample(convertLines, allowed), allowed...)
}
