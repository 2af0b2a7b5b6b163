package cli

// worldScript makes the images that the command lines of the other tables work
// on.
const worldScript = `
img() { qemu-img "$@" >/dev/null; }
io() { f=$1; shift; for c; do set -- "$@" -c "$c"; shift; done; qemu-io "$@" "$f" >/dev/null; }

mkdir dir
echo nothing >text
: >empty
truncate -s 100 short
img create -f raw raw 3M
qemu-io -f raw -c 'write -P 3 0 256k' -c 'write -P 4 1M 4k' raw >/dev/null
truncate -s 2000 odd

img create -f qcow2 q 4M
io q 'write -P 1 1M 1M' 'write -P 0 2M 128k' 'write -z 3M 64k'
cp q same
img create -f qcow2 q2 4M
io q2 'write -P 1 1M 1M'
img create -f qcow2 q3 4M
io q3 'write -P 1 1M 1M' 'write -P 5 3500000 1'
img create -f qcow2 longer 5M
io longer 'write -P 1 1M 1M'
img create -f qcow2 longer2 5M
io longer2 'write -P 1 1M 1M' 'write -P 1 4M 1k'
img create -f qcow2 -o cluster_size=4k,compat=0.10 old 4M
io old 'write -P 1 1M 1M'
img create -f qcow2 -o extended_l2=on,lazy_refcounts=on,refcount_bits=64 ext 4M
io ext 'write -P 7 1M 2k'
img create -f qcow2 -o data_file=df datafile 1M
io datafile 'write -P 6 0 512k'
img create -f qcow2 -o data_file=nodf lost 1M
rm nodf
img create -f qcow2 -o data_file=dfr,data_file_raw=on dfraw 1M
img convert -c -O qcow2 q compressed
img convert -c -O qcow2 -o compression_type=zstd q zstd
cp q mixed
io mixed 'write -c 3584k 64k'
img create -f qcow2 -o compat=0.10 zero 0
img create -f qcow2 --object secret,id=s,data=abc -o encrypt.format=aes,encrypt.key-secret=s aes 1M
# At times QEMU can't measure how fast it is.
crypt() { until img create -f "$@" 2>err; do grep -q accurate err; done; rm err; }
opened() { f=$1; shift; qemu-io --object secret,id=s,data=abc --image-opts "$f" -c "$1" >/dev/null; }
luks=encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10
crypt qcow2 --object secret,id=s,data=abc -o $luks luks 1M
opened driver=qcow2,file.filename=luks,encrypt.key-secret=s 'write -P 5 100k 200k'
crypt qcow2 --object secret,id=s,data=abc -o $luks -b luks -F qcow2 luksover 2M
opened driver=qcow2,file.filename=luksover,encrypt.key-secret=s,backing.encrypt.key-secret=s 'write -P 6 200k 200k'
opened driver=qcow2,file.filename=aes,encrypt.key-secret=s 'write -P 7 300k 70000'
crypt luks --object secret,id=s,data=abc -o key-secret=s,iter-time=10 lks 1M
opened driver=luks,file.filename=lks,key-secret=s 'write -P 8 0 1M'
printf abc >pass
printf 'abc\n' >pass2
printf YWJj >pass64
printf '*' >bad64

img create -f qcow2 -b raw -F raw over 8M
io over 'write -P 8 1M 64k' 'write -z 64k 64k'
img create -f qcow2 -b over -F qcow2 over2
io over2 'write -P 9 2M 1k'
img create -f qcow2 -b over2 -F qcow2 short3 1M
img create -f qcow2 -b ../raw -F raw dir/over
img create -f qcow2 -u -b missing -F qcow2 orphan 1M
img create -f qcow2 -u -b raw -F qcow2 misnamed 1M
img create -f qcow2 -u -b nbd:unix:/nosuch -F raw remote 1M
img create -f qcow2 -u -b foo:bar -F raw strange 1M
img create -f qcow2 -u -b file:raw -F raw fileover 1M
img create -f qcow2 -u -b 'json:{"driver":"raw","file.filename":"raw"}' -F raw jsonover 1M
img create -f qcow2 -u -b loop -F qcow2 lp 1M; mv lp loop
img create -f qcow2 -u -b loop3 -F qcow2 loop2 1M
img create -f qcow2 -u -b loop2 -F qcow2 loop3 1M
img create -f qcow2 -b raw -F raw guess 3M
img rebase -u -b raw guess 2>/dev/null || true

img create -f qcow2 -b q -F qcow2 snapsover 6M
io snapsover 'write -P 2 0 1M' 'write -P 3 5M 64k'
img snapshot -c one snapsover
io snapsover 'write -P 4 64k 1M'
img snapshot -c äöü snapsover
img create -f qcow2 -o data_file=dfo -b raw -F raw dfover
io dfover 'write -P 2 100k 1M'
img create -f qcow2 -o compat=0.10 -b q3 -F qcow2 oldover
io oldover 'write -P 2 100k 1M'
img create -f qcow2 -o extended_l2=on,cluster_size=256k -b old -F qcow2 extover
io extover 'write -P 2 2k 1k' 'write -z 1M 128k' 'write -P 5 1100k 8k'
img create -f qcow2 -b over -F qcow2 ontop 1M
io ontop 'write -P 2 512k 64k'
img create -f qcow2 -b ontop -F qcow2 ontop2 2M
io ontop2 'write -P 2 1M 64k' 'write -z 500k 30k'
img create -f qcow2 -b zero -F qcow2 zeroover

poke() { printf "$3" | dd of=$1 bs=1 seek=$2 conv=notrunc status=none; }
img create -f qcow2 misplaced 1M
io misplaced 'write -P 1 0 640k' 'write -z 0 64k'
poke misplaced 262144 '\200\0\0\0\0\005\002\001'
img create -f qcow2 mislaid 1M
io mislaid 'write -P 1 0 640k'
poke mislaid 262144 '\200\0\0\0\0\005\002\0'
cp mislaid mislaid2
poke mislaid2 131084 '\0\0'
img create -f qcow2 -o extended_l2=on misext 1M
io misext 'write -P 1 0 640k' 'write -z 0 64k'
poke misext 262144 '\200\0\0\0\0\005\002\0'
cp q claimed
poke claimed 262144 '\200\0\0\0\0\003\0\0'
cp q norefs
poke norefs 59 '\0'
cp q farrefs
poke farrefs 52 '\001'
cp ext badsub
poke badsub $((0x4010b)) '\001'
cp q reserved
poke reserved 65543 '\007'
img create -f qcow2 snapl1 1M
io snapl1 'write 0 64k'
img snapshot -c one snapl1
cp snapl1 snapbig
cp snapl1 longextra
truncate -s 512k longextra
poke snapl1 458758 '\002'
poke snapbig 458760 '\020'
poke longextra $((0x70000 + 38)) '\007\320'
cp snapl1 snapoff
poke snapoff 70 '\002'
cp snapl1 manysnaps
poke manysnaps 60 '\0\001\0\0\0\0\0\0\001'
cp q farcluster
poke farcluster 262152 '\200\0\0\377\377\377\0\0'
cp q fartable
poke fartable 262152 '\277\377\377\377\377\377\0\0'

img create -f vpc vhd 5M
qemu-io -f vpc -c 'write -P 1 1M 64k' -c 'write -P 2 4M 512' vhd >/dev/null
img convert -O vpc -o subformat=fixed q vhdfixed
img create -f vpc -o force_size=on vhdsame 3M
cp vhd vhdbadsum
printf x | dd of=vhdbadsum bs=1 seek=30 conv=notrunc status=none

img create -f qed qed 4M
io qed 'write -P 1 1M 1M' 'write -z 3M 64k'
img create -f qed -o cluster_size=4k,table_size=2 qedsmall 4M
io qedsmall 'write -P 1 1M 1M' 'write -P 2 10k 3k' 'write -P 2 20k 1k' 'write -z 1400k 64k'
img create -f qed -b raw -F raw qedover 8M
io qedover 'write -P 8 1M 64k' 'write -z 64k 64k'
img create -f qed -b q -F qcow2 qedq
io qedq 'write -P 9 2M 1k'
img create -f qed -b qedover -F qed qedover2
io qedover2 'write -P 3 64k 128k'
img create -f qcow2 -b qedover2 -F qed overqed
io overqed 'write -P 4 100k 100k'
img create -f qed -u -b missing -F raw qedorphan 1M
img create -f qed qedzero 0
img create -f qed -o table_size=1 qedone 1M
cp qed qedopen; printf '\2' | dd of=qedopen bs=1 seek=16 conv=notrunc status=none
cp qed qedunknown; printf '\10' | dd of=qedunknown bs=1 seek=16 conv=notrunc status=none
cp qed qedauto; printf '\1' | dd of=qedauto bs=1 seek=32 conv=notrunc status=none
cp qed qedleaky; truncate -s +128k qedleaky
cp qed qedcut; truncate -s 1M qedcut
cp qed qednotable; truncate -s 128k qednotable
cp qed qednohead; truncate -s 32 qednohead
cp qed qedbad; printf '\0\0\0\0\0\1\0\0' | dd of=qedbad bs=1 seek=$((0x150000)) conv=notrunc status=none
cp qed qeddouble; printf '\0\0\5\0\0\0\0\0' | dd of=qeddouble bs=1 seek=$((0x150000)) conv=notrunc status=none
cp qed qedbadl1; printf '\0\0\0\0\0\1\0\0' | dd of=qedbadl1 bs=1 seek=$((0x10008)) conv=notrunc status=none
cp qedbad qedbadopen; printf '\2' | dd of=qedbadopen bs=1 seek=16 conv=notrunc status=none

img create -f qcow2 snaps 2M
io snaps 'write -P 1 0 64k'
img snapshot -c first snaps
io snaps 'write -P 2 0 64k' 'write -P 2 1M 64k'
img snapshot -c 'a second one' snaps
io snaps 'write -P 3 64k 64k'

img create -f qcow2 resized 1M
io resized 'write -P 1 512k 256k'
img snapshot -c small resized
img resize resized 3M
io resized 'write -P 2 2M 256k'
img snapshot -c large resized
img snapshot -c 2 resized
img resize --shrink resized 2M
img create -f qcow2 amb 1M
for name in 2 1 dup dup; do n=$((${n:-20} + 1)); io amb "write -P $n 0 64k"; img snapshot -c $name amb; io amb "write -P 9 64k 64k"; done
img create -f qcow2 -o compat=0.10 oldsnaps 1M
img snapshot -c x oldsnaps
img create -f qcow2 -o refcount_bits=1,cluster_size=4k onebit 1M
io onebit 'write -P 1 0 64k'

img create -f qcow2 bm 4M
img bitmap --add -g 32k bm one
io bm 'write -P 1 1M 100k' 'write -P 2 3M 1'
img bitmap --add --disable bm two
img bitmap --add --disable -g 512 bm three
io bm 'write -P 1 2M 100k'
cp bm inuse; qemu-io -c abort inuse >/dev/null 2>&1 || true
img bitmap --add inuse usable
img create -f qcow2 bm2 2M
img bitmap --add bm2 one
img bitmap --add bm2 other
io bm2 'write -P 1 1M 100k'
cp bm forgotten; printf '\0' | dd of=forgotten bs=1 seek=95 conv=notrunc status=none
img create -f qcow2 -b bm -F qcow2 bmover
img bitmap --add bmover one
io bmover 'write -P 4 0 64k'
cp bm bmsnap; img snapshot -c first bmsnap

cp q truncated; truncate -s 400000 truncated
cp q badmagic; printf XXXX | dd of=badmagic conv=notrunc status=none
cp q badversion; printf '\0\0\0\011' | dd of=badversion bs=1 seek=4 conv=notrunc status=none
cp q leaky; truncate -s +64k leaky
printf '\0\1' | dd of=leaky bs=1 seek=$((131072 + 2 * ($(stat -c %s leaky) / 65536 - 1))) conv=notrunc status=none
cp q corrupt; printf '\0\0' | dd of=corrupt bs=1 seek=$((131072 + 10)) conv=notrunc status=none
cp corrupt unclosed; printf '\1' | dd of=unclosed bs=1 seek=79 conv=notrunc status=none
cp q marked; printf '\2' | dd of=marked bs=1 seek=79 conv=notrunc status=none
cp q flags; printf '\0' | dd of=flags bs=1 seek=$((0x40000)) conv=notrunc status=none
cp snaps low; printf '\0\1' | dd of=low bs=1 seek=$((131072 + 10)) conv=notrunc status=none
cp q badl1; printf '\200\0\0\0\0\04\02\0' | dd of=badl1 bs=1 seek=$((0x30000)) conv=notrunc status=none
cp q unknown; printf '\200' | dd of=unknown bs=1 seek=72 conv=notrunc status=none
ln -s q link
ln -s nowhere dangling
`
