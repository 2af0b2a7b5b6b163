package cli

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"testing"
)

// Names in QEMU's syntax: lists of options, JSON, protocols.
var nameLines = []string{
	"info --image-opts driver=qcow2,file.filename=q,l2-cache-size=1M", "info --image-opts driver=qcow2,file.filename=q,lazy-refcounts=on",
	"info --image-opts driver=qcow2,file.filename=q,cache-size=1M,refcount-cache-size=256k,l2-cache-entry-size=4k,cache-clean-interval=3",
	"info --image-opts driver=qcow2,file.filename=q,overlap-check=all", "info --image-opts driver=qcow2,file.filename=q,overlap-check.template=cached,overlap-check.main-header=off",
	"info --image-opts driver=qcow2,file.filename=q,pass-discard-request=on,pass-discard-snapshot=off,pass-discard-other=on", "info --image-opts driver=qcow2,file.filename=q,discard=unmap",
	"info --image-opts driver=qcow2,file.filename=q,discard=foo", "info --image-opts driver=qcow2,file.filename=q,detect-zeroes=on",
	"info --image-opts driver=qcow2,file.filename=q,cache.direct=off,cache.no-flush=on",
	"info --image-opts driver=qcow2,file.filename=q,cache.direct=on", "info --image-opts driver=qcow2,file.filename=q,cache.writeback=on",
	"info --image-opts driver=qcow2,file.filename=q,node-name=foo", "info --image-opts driver=qcow2,file.filename=q,auto-read-only=on",
	"info --image-opts driver=qcow2,file.filename=q,read-only=off", "info --image-opts driver=qcow2,file.filename=q,force-share=on",
	"info --image-opts driver=qcow2,file.filename=q,file.locking=off", "info --image-opts driver=qcow2,file.filename=q,file.locking=foo",
	"info --image-opts driver=qcow2,file.filename=q,file.aio=threads", "info --image-opts driver=qcow2,file.filename=q,file.aio=foo",
	"info --image-opts driver=qcow2,file.filename=q,file.node-name=foo", "info --image-opts driver=qcow2,file.filename=q,file.read-only=on",
	"info --image-opts driver=qcow2,file.filename=q,file.cache.direct=on", "info --image-opts driver=qcow2,file.filename=q,file.discard=unmap",
	"info --image-opts driver=qcow2,file.filename=q,file.drop-cache=off", "info --image-opts driver=qcow2,file.filename=q,file.foo=on",
	"map --image-opts driver=qcow2,file.filename=over,backing.driver=qcow2,backing.file.filename=q",
	"map --output=json --image-opts driver=qcow2,file.filename=over2,backing.backing.driver=qcow2,backing.backing.file.filename=q",
	"map --output=json --image-opts driver=qcow2,file.filename=over,backing.driver=qcow2,backing.file.filename=q", "map --output=json --image-opts driver=qcow2,file.filename=over,backing=foo",
	`map --output=json 'json:{"driver":"qcow2","file.filename":"over","backing":null}'`,
	`map --output=json 'json:{"driver":"qcow2","file.filename":"over","backing":{"driver":"qcow2","file":{"driver":"file","filename":"q"}}}'`,
	`map --output=json 'json:{"driver":"qcow2","file.filename":"orphan","backing":{"driver":"qcow2","file":{"driver":"file","filename":"q"}}}'`,
	"map --output=json --image-opts driver=qcow2,file.filename=orphan,backing.file.filename=q", "info --image-opts driver=raw,file.driver=file,file.filename=q",
	"map --output=json --image-opts driver=raw,offset=1M,size=1M,file.filename=raw", "map --output=json --image-opts driver=raw,offset=1M,file.filename=raw",
	"map --output=json --image-opts driver=raw,offset=4M,file.filename=raw", "map --output=json --image-opts driver=raw,size=4M,file.filename=raw",
	"map --output=json --image-opts driver=raw,size=1000,file.filename=raw", "map --output=json --image-opts driver=qcow2,data-file.driver=file,data-file.filename=df,file.filename=lost",
	"info --image-opts driver=file,filename=raw", "info --image-opts filename=q", "info --image-opts file=q", "info --image-opts q", "info --image-opts driver=raw,filename=raw",
	"info --image-opts driver=qcow2,file.filename=q,file.filename=q2", "info --image-opts driver=qcow2,,x,file.filename=q", "info --image-opts driver=qcow2,file.filename=a,,b",
	"info --image-opts driver,file.filename=q", "info --image-opts file.filename=", "info --image-opts read-only,file.filename=q", "info --image-opts noread-only,file.filename=q",
	"info --image-opts driver=qcow2,file.filename=q,read-only=foo", "info --image-opts driver=qcow2,file=,file.filename=q", "info --image-opts driver=null-co,size=1M",
	"info --image-opts driver=raw,file.driver=null-co,file.size=1M", "info null-co://", "info null-co:", "info null-aio://", "info -f raw null-co://",
	`info 'json:{"driver":"null-co","size":1048576}'`, `info 'json:{"driver":"null-co","size":"1M"}'`, `info 'json:{"driver":"qcow2","file":"q"}'`,
	`info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"q"},"foo":1}'`, `info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"q","foo":1}}'`,
	`info 'json:{"driver":"qcow2","file":{"driver":"foo","filename":"q"}}'`, `info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"q"},"read-only":true}'`,
	`info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"q"},"read-only":"on"}'`, `info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"q"},"read-only":"foo"}'`,
	`info -f qcow2 'json:{"driver":"qcow2","file":{"driver":"file","filename":"q"}}'`, `info -f raw 'json:{"driver":"qcow2","file":{"driver":"file","filename":"q"}}'`, "info json:",
	"info json:3", `info 'json:""'`, `info 'json:{"file.filename":"q"} x'`, `info 'json:{"file.filename":"q","file":{"filename":"q"}}'`, `info 'json: {"file.filename":"q"}'`,
	`info 'json:{"driver":"blkdebug","image":{"driver":"file","filename":"q"}}'`, `info 'json:{"driver":"qcow2","file":{"driver":"blkdebug","image":{"driver":"file","filename":"q"}}}'`,
	"info blkdebug::q", "info blkdebug:nosuch:q", "info --image-opts driver=blkverify,raw.filename=raw,test.driver=raw,test.file.filename=raw", "info file:", "info file:./q",
	"info file:/nosuch", "info file:///tmp/x", "info ./file:q", "info 'q:foo'", "info ':q'", "info 'a/b:c'", "compare --image-opts driver=qcow2,file.filename=q driver=qcow2,file.filename=same",
	"compare --image-opts -F qcow2 driver=qcow2,file.filename=q driver=qcow2,file.filename=same", "compare --image-opts driver=qcow2,file.filename=q same",
	"check --image-opts driver=qcow2,file.filename=q,lazy-refcounts=on", "snapshot --image-opts -l driver=qcow2,file.filename=snaps,read-only=on",
	"convert --image-opts -O raw driver=qcow2,file.filename=over,backing.driver=qcow2,backing.file.filename=q o", "convert --image-opts -O raw driver=qcow2,file.filename=q o",
	"convert -n --target-image-opts q driver=qcow2,file.filename=q2", "convert -n --target-image-opts q driver=qcow2,file.filename=q2,read-only=on",
	"convert -n --target-image-opts q driver=qcow2,file.filename=missing", "convert -n --target-image-opts q q2", "convert -n --target-image-opts -O qcow2 q driver=qcow2,file.filename=q2",
	`convert -n -O qcow2 q 'json:{"driver":"qcow2","file.filename":"q2"}'`, `convert -O qcow2 q 'json:{"driver":"qcow2","file.filename":"o"}'`, "convert -O qcow2 q file:o",
	"convert -O qcow2 q null-co://", "convert -n -O raw q null-co://,size=4M", "convert -O raw q null-co://", "convert -n --target-image-opts q driver=null-co,size=4M",
	"convert -n --target-image-opts q driver=raw,file.driver=null-co,file.size=4M", "create -f qcow2 json:{} 1M", "create -f qcow2 null-co:// 1M", "create -f qcow2 file:o 1M",
	`create -f qcow2 -b 'json:{"driver":"qcow2","file.filename":"q"}' -F qcow2 o`, "create -f qcow2 -b file:q -F qcow2 o", "create -f qcow2 -b null-co:// -F raw o",
	"create -f raw blkdebug::x 1M", "create -f qcow2 blkdebug::x 1M", "convert q blkdebug::x", "dd if=q of=null-co://", "create -f qcow2 :x 1M", "info :q", "convert q :x",
	"create -f qcow2 foo:x 1M", `info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"q","locking":"off"}}'`, "compare null-co:// null-co://",
	"convert -n --target-image-opts q driver=qcow2,file.filename=q2,discard=unmap", "measure -O qcow2 null-co://", "dd if=null-co:// of=o bs=1M count=1",
	`check 'json:{"driver":"qcow2","file.filename":"q"}'`, `info --output=json 'json:{"driver":"qcow2","file.filename":"q"}'`,
	`info --backing-chain 'json:{"driver":"qcow2","file.filename":"over2"}'`, `snapshot -l 'json:{"driver":"qcow2","file.filename":"snaps"}'`,
	"info --image-opts driver=qcow2,file.filename=over,backing.driver=raw,backing.file.filename=raw",
	`info 'json:{"driver":"qcow2","driver":"raw","file.filename":"q"}'`, `info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"q","filename":"q"}}'`,
	"info 'json:{\"driver\":'", `info 'json:{"driver":"qcow2","file.filename":"q"}}'`, `info 'json:{"driver":"qcow2","file.filename":"q"}{}'`,
	"create -f qcow2 -o data_file=file:d o 1M", "create -f qcow2 -o data_file=file:e:f o 1M", "create -f qcow2 -o data_file=./e:f o 1M", "create -f qcow2 -o data_file=foo:d o 1M",
	"create -f qcow2 -o data_file=json:{} o 1M", "create -f qcow2 -o data_file= o 1M", "create -f qcow2 -o data_file=file:dir/d dir/o 1M",
	"info --image-opts q,,x", "info --image-opts q,,x,driver=raw",
	// what an image is called
	`info 'json:{"driver":"raw","file.filename":"raw","offset":512}'`, `info 'json:{"driver":"raw","file.filename":"raw","offset":"1k","size":1e3}'`, "info --image-opts driver=raw,offset=0,file.filename=raw",
	`info 'json:{"driver":"raw","file":{"driver":"file","filename":"raw","locking":"off","cache":{"direct":false}},"size":1024,"read-only":true,"node-name":"x"}'`,
	`info 'json:{"driver":"raw","file":{"driver":"null-co","size":4096,"read-zeroes":true}}'`, "info --image-opts driver=null-co,read-zeroes=on", `info 'json:{"driver":"null-co","size":"4k","latency-ns":1}'`,
	`info 'json:{"driver":"qcow2","file":{"driver":"blkdebug","align":4096,"image":{"driver":"file","filename":"q"}}}'`, "info --image-opts driver=blkdebug,config=empty,image.filename=q,align=512",
	"info --image-opts driver=qcow2,file.driver=blkdebug,file.image.filename=q,file.inject-error.0.event=read_aio,file.inject-error.0.once=on,file.set-state.0.event=l2_load,file.set-state.0.new_state=2",
	"info --image-opts driver=qcow2,file.driver=raw,file.file.filename=q", "info --image-opts driver=qcow2,file.driver=raw,file.offset=0,file.file.filename=q", "info blkdebug:empty:q",
	"info --image-opts driver=blkverify,raw.driver=raw,raw.size=3M,raw.file.filename=raw,test.driver=raw,test.file.filename=raw", "info blkverify:raw:raw",
	"info --image-opts driver=quorum,vote-threshold=1,children.0.driver=raw,children.0.file.filename=raw,blkverify=off,rewrite-corrupted=off,read-pattern=fifo",
	`info 'json:{"driver":"qcow2","file.filename":"over","backing":null}'`, `info 'json:{"driver":"qcow2","file.filename":"datafile","data-file":{"driver":"file","filename":"df"}}'`,
	"info --image-opts driver=copy-on-read,file.driver=qcow2,file.file.filename=q",
	// a filename in options is that of a file
	"info --image-opts driver=qcow2,file.filename=file:q", "info --image-opts driver=qcow2,file.filename=blkdebug::q", "info --image-opts file.filename=a:b", "info --image-opts driver=file,filename=file:q",
	`info 'json:{"file":{"filename":"json:{}"}}'`, "info --image-opts driver=qcow2,file.driver=blkdebug,file.image.filename=nbd:x", "map --image-opts driver=qcow2,file.filename=over,backing.file.filename=file:q",
	"info --image-opts driver=raw,file.driver=blkdebug,file.filename=blkdebug::q", "info blkdebug::file:q",
	// which of them count
	"map --image-opts driver=qcow2,file.filename=over,backing.file.filename=dir/over", "map --image-opts driver=qcow2,file.filename=over,backing=foo,backing.driver=raw", "map --image-opts driver=qcow2,file.filename=over,backing.file.foo=1",
	"map --image-opts driver=raw,file.filename=raw,backing.driver=raw,backing.file.filename=raw", `map 'json:{"driver":"qcow2","file.filename":"q","data-file":"x"}'`, `map 'json:{"driver":"qcow2","file.filename":"q","data-file":{"a":1}}'`,
	`map 'json:{"driver":"qcow2","file":null,"file.filename":"q","read-only":null,"cache-size":null}'`, `map 'json:{"driver":"qcow2","file.filename":"q","cache":{}}'`, `map 'json:{"driver":3,"file.filename":"q"}'`,
	`map 'json:{"driver":"","file.filename":"q"}'`, "map --image-opts driver=,file.filename=q", `map 'json:{"driver":"file","filename":3}'`, `map 'json:{"driver":"qcow2","file":3}'`, "map --image-opts driver=qcow2,file.foo=1",
	"info --image-opts driver=file,filename=q,pr-manager=x", "info --image-opts driver=file,filename=q,aio-max-batch=x", "info --image-opts driver=file,filename=q,x-check-cache-dropped=3",
	"info --image-opts driver=vpc,file.filename=vhd,force_size_calc=chs", "map --output=json --image-opts driver=vpc,file.filename=vhd,force_size_calc=current_size", "info --image-opts driver=vpc,file.filename=vhd,force_size_calc=x",
	// filters
	"info --object throttle-group,id=t --image-opts driver=throttle,throttle-group=t,file.driver=qcow2,file.file.filename=over", "info --image-opts driver=throttle,throttle-group=t,file.filename=q", "info --image-opts driver=throttle,file.filename=q",
	"map --output=json --object throttle-group,id=t,x-bps-total=10000000 --image-opts driver=qcow2,file.driver=throttle,file.throttle-group=t,file.file.filename=q", "info --object throttle-group,id=t --image-opts driver=throttle,throttle-group=t,x=1,file.filename=q",
	"convert --object throttle-group,id=t,limits.iops-total=10000 -O qcow2 --image-opts driver=throttle,throttle-group=t,file.driver=qcow2,file.file.filename=q o", "info --object throttle-group,id=t --image-opts driver=throttle,throttle-group=t",
	"convert -n --object throttle-group,id=t --target-image-opts q driver=throttle,throttle-group=t,file.driver=qcow2,file.file.filename=q2", "resize --object throttle-group,id=t --image-opts driver=throttle,throttle-group=t,file.driver=raw,file.file.filename=raw 5M",
	"info --image-opts driver=preallocate,prealloc-size=1M,file.filename=raw", "info --image-opts driver=preallocate,prealloc-align=1000,file.filename=raw", "map --image-opts driver=preallocate,file.driver=qcow2,file.file.filename=q", "map --image-opts driver=qcow2,file.driver=preallocate,file.file.filename=raw",
	"info --image-opts driver=compress,file.driver=qcow2,file.file.filename=over", "info -f preallocate q", "info -f throttle q", "info -f file q", "map -f file raw", "check -f blkdebug q", "info -f blkverify q", "info -f null-co q", "info -f host_device q", "info -f quorum q",
	"create -f file o 1M", "create -f file -o help", "create -f file -o help o", "create -f file -b q -F qcow2 o", "convert -O file q o",
	// JSON
	"info 'json:{'", "info json:}", "info json:foo", `info 'json:{"a" 1}'`, `info 'json:{"a":1 "b":2}'`, "info 'json:{a:1}'", "info 'json:{1:1}'", `info 'json:{"a":[1 2]}'`, `info 'json:{"a":"b'`, `info 'json:{"a":"\x"}'`,
	`info 'json:{"a":"\u12"}'`, `info 'json:{"a":-}'`, `info 'json:{"a":1!'`, `info 'json:{"a":1,"a":2}'`, `info 'json:{"a":{"b":1]}'`, "info json:%s", `info 'json:[1]'`,
}

func TestNames(t *testing.T) {
	allowed := []difference{
		{lines: "info --image-opts driver=qcow2,file.filename=over,backing.driver=raw.*", why: "info may name an image below, which it does not open", stdout: "image: json:.*", stderr: nothing, code: success},
	}
	differential(t, sample(nameLines, allowed), allowed...)
}

// Trace events, of which there are none.
var traceLines = []string{
	"-T foo info q", "--trace foo info q", "--tr=foo info q", "-Tfoo -T bar info q", "-T foo", "-T zz* info q", "-T -foo info q", "-T - info q", "-T '' info q", "-T enable= info q",
	"-T foo=bar info q", "-T foo=bar,baz info q", "-T ,foo info q", "-T foo,, info q", "-T enable=foo,enable=bar info q", "-T events= info q", "-T events=none info q",
	"-T foo,events=none info q", "-T events=text info q", "-T events=. info q", "-T", "--trace", "-T help", "-T foo nosuch", "-T bdrv_open_common info q", "-T file=o info q",
}

func TestTrace(t *testing.T) {
	differential(t, traceLines,
		difference{lines: "-T help", why: "there are no trace events", stdout: nothing},
		difference{lines: "-T bdrv_.*", why: "that one does not exist here", stderr: "qemu-img: warning: trace event 'bdrv_open_common' does not exist"},
		difference{lines: "-T file=o .*", why: "there is nothing to write into it", images: true})
}

// TestOneStream checks the order of standard output and standard error where
// both go to one file.
func TestOneStream(t *testing.T) {
	for _, line := range []string{"check corrupt", "check -r all corrupt", "check -r leaks leaky", "create -f qcow2 nosuch/o 1M", "compare q q2", "map --output=json truncated", "info --backing-chain orphan"} {
		dir := newTwin(t, world(t)).dir
		t.Chdir(dir)
		var ours bytes.Buffer
		Run(context.Background(), append([]string{qemuImg}, words(line)...), strings.NewReader(""), &ours, &ours)
		cmd := exec.Command(qemuImg, words(line)...)
		cmd.Dir = newTwin(t, world(t)).dir
		theirs, _ := cmd.CombinedOutput() // the exit code is that of other tests
		if ours.String() != string(theirs) {
			t.Errorf("%s:\n%s\nqemu-img prints:\n%s", line, ours.String(), theirs)
		}
	}
}
