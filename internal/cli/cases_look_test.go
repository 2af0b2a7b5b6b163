package cli

import "testing"

var infoLines = []string{
	"info", "info a b", "info --foo", "info -f", "info --output", "info --output=foo q", "info --output= q", "info --output=xml",
	"info -Z q", "info --image-opts=3 q", "info --b q", "info --o=json q", "info -- -x", "info missing", "info ''", "info dir", "info dir/over",
	"info raw", "info text", "info empty", "info short", "info odd", "info q", "info -f qcow2 q", "info -f raw q", "info -fraw q",
	"info -U q", "info --force-share q", "info q -U", "info -Uq q", "info old", "info ext", "info datafile", "info lost", "info compressed", "info zstd",
	"info zero", "info over", "info over2", "info orphan", "info misnamed", "info remote", "info strange", "info fileover", "info jsonover",
	"info loop", "info guess", "info snaps", "info leaky", "info corrupt", "info badl1", "info truncated", "info badmagic", "info badversion", "info unknown",
	"info link", "info -f foo missing", "info -f vmdk missing", "map -f foo missing", "check -f foo missing", "info ./q", "info ./dir/over", "info dir/../dir/over", "info dangling", "info -f foo q", "info -f qcow2 raw", "info -f qcow2 missing",
	"info -f qcow2 empty", "info file:q", "info foo:q", "info ./foo:q",
	"info --output=json raw", "info --output=json q", "info --output json old", "info --output=json ext", "info --output=json datafile",
	"info --output=json zstd", "info --output=json over", "info --output=json dir/over", "info --output=json snaps", "info --output=json jsonover",
	"info --output=json missing", "info --output=human q",
	"info --backing-chain q", "info --backing-chain over2", "info --backing-chain --output=json over2", "info --backing-chain dir/over",
	"info --backing-chain orphan", "info --backing-chain misnamed", "info --backing-chain strange", "info --backing-chain loop",
	"info --backing-chain loop2", "info --backing-chain --output=json loop2", "info --backing-chain fileover", "info --backing-chain jsonover", "info --backing-chain guess",
	"info aes", "info --output=json aes", "info --image-opts driver=qcow2,file.filename=q", "info --image-opts driver=qcow2,file.driver=file,file.filename=q",
	"info --image-opts file.filename=q", "info --image-opts filename=q", "info --image-opts driver=qcow2,file=q",
	"info --image-opts driver=qcow2", "info --image-opts driver=foo", "info --image-opts ''", "info --image-opts -f qcow2 file.filename=q",
	"info --image-opts driver=raw,file.filename=missing", "info --image-opts driver=raw,file.filename=raw",
	"info --image-opts driver=qcow2,file.filename=q,foo.bar=1", "info --image-opts driver=qcow2,file.filename=q,read-only=on",
	`info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"q"}}'`, `info 'json:{"driver":"qcow2","file.filename":"q"}'`,
	`info 'json:{"file.filename":"q"}'`, `info -f raw 'json:{"file.filename":"q"}'`, `info 'json:{"driver":"qcow2","file.filename":"none"}'`,
	"info file:foo:bar", `info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"dir/over"}}'`,
	"info 'json:{'", "info 'json:{}'", "info 'json:[]'",
	"info bm", "info --output=json bm", "info inuse", "info --output=json inuse", "info forgotten", "info bmsnap",
	"info --backing-chain bmover", "info --backing-chain --output=json bmover",
}

func TestInfo(t *testing.T) {
	differential(t, infoLines, noForgotten)
}

var mapLines = []string{
	"map", "map a b", "map --foo", "map --output=foo q", "map missing", "map dir", "map raw", "map q", "map -f qcow2 q", "map -f raw q", "map old", "map ext",
	"map mislaid", "map --output=json mislaid", "map misplaced", "map datafile", "map lost", "map compressed", "map mixed", "map zero", "map empty", "map over", "map over2", "map short3", "map dir/over", "map orphan", "map misnamed",
	"map strange", "map fileover", "map jsonover", "map guess", "map snaps", "map badl1", "map truncated", "map -U q",
	"map --output=json raw", "map --output=json odd", "map --output=json q", "map --output=json old", "map --output=json ext", "map --output=json datafile",
	"map --output=json compressed", "map --output=json zstd", "map --output=json zero", "map --output=json empty", "map --output=json over", "map --output=json over2",
	"map --output=json short3", "map --output=json snaps", "map --output=json badl1", "map --output=json truncated", "map --output=json corrupt",
	"map aes", "map -s 1M -l 128k over", "map --start-offset=1M --max-length 64k --output=json over", "map -s 1 -l 1 --output=json over", "map -s 1000 -l 100000 --output=json over2",
	"map -s 100M over", "map -s 100M --output=json over", "map -l 0 --output=json over", "map -l 0 over", "map -s x over", "map -l x over", "map -s -1 over", "map -s 9E over",
	"map -l 1E q", "map -s 1.5M --output=json q", "map -s 0x100000 --output=json q", "map -s 0x400k q", "map --image-opts driver=qcow2,file.filename=q",
}

func TestMap(t *testing.T) {
	differential(t, mapLines)
}

var checkLines = []string{
	"check longextra", "check snapoff", "info longextra", "snapshot -l longextra", "snapshot -c x longextra",
	"check misplaced", "check mislaid", "check mislaid2", "check misext", "check reserved", "check snapl1", "check snapbig", "check farcluster",
	"check", "check a b", "check --foo", "check -r foo q", "check -r", "check -T foo q", "check --output=foo q", "check --output=foo", "check missing", "check dir", "check raw",
	"check --output=json raw", "check -f raw q", "check q", "check -q q", "check -q --output=json q", "check claimed", "check norefs", "check farrefs", "check --output=json farrefs", "check badsub", "check --output=json q", "check old", "check ext", "check --output=json ext", "check datafile", "check lost",
	"check compressed", "check --output=json compressed", "check zstd", "check zero", "check --output=json zero", "check over2", "check orphan", "check misnamed", "check strange",
	"check snaps", "check --output=json snaps", "check leaky", "check -q leaky", "check --output=json leaky", "check corrupt", "check -q corrupt", "check --output=json corrupt",
	"check unclosed", "check marked", "check flags", "check low", "check badl1", "check truncated", "check --output=json truncated", "check badmagic", "check badversion", "check unknown", "check -U q", "check -T none q",
	"check aes", "check -f qcow2 q", "check -f qcow2 raw", "check --image-opts driver=qcow2,file.filename=q", "check --image-opts -f qcow2 q", "check -p q",
}

func TestCheck(t *testing.T) {
	differential(t, checkLines,
		difference{
			lines: "check badl1", why: "a table that is not where it can be is not looked at",
			stdout: `\n1 errors were found.*`, stderr: `ERROR l2_offset=.*: Table is not cluster aligned; L1 entry corrupted\n(Leaked cluster .*\n)*`,
		})
}

var repairLines = []string{
	"check -r all misplaced", "check -r leaks misplaced", "check -r all mislaid", "check -r leaks mislaid", "check -r all misext", "check -r all --output=json misplaced",
	"check -r all longextra", "check -r leaks longextra", "check -r all snapoff", "check -r leaks farcluster", "check -r all snapl1", "check -r leaks snapbig",
	"check -r all q", "check -r leaks leaky", "check -r all leaky", "check -r leaks --output=json leaky", "check -r all -q leaky", "check -r all raw", "check -r all -f raw raw",
	"check -r leaks corrupt", "check -r all corrupt", "check -r all --output=json corrupt", "check --repair=all q", "check -r all -U q", "check -r all missing",
	"check -r all unclosed", "check -q -r all unclosed", "check -r all --output=json unclosed", "check -r all marked", "check -r leaks marked", "check -r all flags", "check -r leaks flags", "check -r all low",
	"check -r leaks low", "check -r all norefs", "check -r all farrefs", "check -r all badsub", "check -r all claimed",
}

func TestRepair(t *testing.T) {
	differential(t, repairLines,
		difference{lines: "check -r (all mislaid|all snapl1|leaks snapbig)", why: "what can be mended is", images: true},
		difference{
			lines: "check -r all (no|far)refs", why: "refcounts that are made anew lie at the end", images: true,
			stdout: `The following inconsistencies were found and repaired:\n\n    0 leaked clusters\n    2[12] corruptions\n\nDouble checking.*\nNo errors were found.*`,
		},
		difference{
			lines: "check -r all claimed", why: "what metadata is referred to as stays",
			stdout: nothing, stderr: `ERROR cluster 3 refcount=1 reference=2\n.*qemu-img: Check failed: 1 clusters of metadata are referred to as something else too.*`, code: exitCheckFailed,
		},
		difference{
			lines: "check -r leaks corrupt", why: "leaks can be given back all the same",
			stdout: `\n2 errors were found.*`, stderr: `(ERROR cluster 5 .*\n){2}ERROR OFLAG_COPIED .*`, code: exitCheckCorrupt,
		})
}

var compareLines = []string{
	"compare", "compare a", "compare a b c", "compare --foo", "compare missing q", "compare q missing", "compare q same", "compare q q2", "compare -s q q2", "compare -s q same",
	"compare q q3", "compare q3 q", "compare -s q q3", "compare -q q q3", "compare -q q q2", "compare -p q q2", "compare -p q missing", "compare -p -T foo q same", "compare -p q q3", "compare -p -q q q2",
	"compare q longer", "compare longer q", "compare -s q longer", "compare -q -s q longer", "compare q longer2", "compare longer2 q", "compare -q q longer", "compare -p longer q",
	"compare q old", "compare -s q old", "compare q compressed", "compare -s q compressed", "compare zstd compressed", "compare q raw", "compare raw raw", "compare q dir", "compare q orphan", "compare orphan q",
	"compare -f raw q q", "compare -F raw q q", "compare -f raw -F raw q same", "compare -f foo q q", "compare -F foo q q", "compare -T foo q q", "compare -T none q same", "compare -U q same",
	"compare q badl1", "compare badl1 q", "compare --image-opts driver=qcow2,file.filename=q driver=qcow2,file.filename=q2", "compare --image-opts q q2", "compare --image-opts -f raw q q2", "compare --image-opts -F raw q q2", "compare --image-opts -F raw driver=raw,file.filename=q q2", "compare --fo q same",
	"compare aes q", "compare q aes", "compare zero empty", "compare zero raw", "compare over over2", "compare over2 over", "compare q link", "compare datafile datafile",
}

func TestCompare(t *testing.T) {
	differential(t, compareLines)
}

// tuned are options for an image that is open, with a file that has them tried.
func tuned() (lines []string) {
	for _, o := range []string{
		"l2-cache-size=1", "l2-cache-size=x", "cache-size=1M,l2-cache-size=2M", "cache-size=1M,refcount-cache-size=2M", "cache-size=1M,l2-cache-size=512k,refcount-cache-size=512k", "cache-size=1M",
		"l2-cache-entry-size=100", "l2-cache-entry-size=1k", "l2-cache-entry-size=128k", "l2-cache-entry-size=64k", "cache-clean-interval=-1", "cache-clean-interval=5000000000", "cache-clean-interval=10",
		"overlap-check=none", "overlap-check=foo", "overlap-check=all", "overlap-check.template=foo", "overlap-check=none,overlap-check.template=all", "overlap-check.foo=on", "overlap-check.active-l1=x", "overlap-check.template=constant,overlap-check.active-l2=on",
		"discard=foo", "discard=unmap", "discard=ignore", "pass-discard-request=x", "pass-discard-request=on,pass-discard-snapshot=off,pass-discard-other=on", "pass-discard-foo=on", "lazy-refcounts=on", "lazy-refcounts=x",
	} {
		lines = append(lines, "map --image-opts driver=qcow2,file.filename=q,"+o)
	}
	return append(lines, "map --image-opts driver=qcow2,file.filename=old,lazy-refcounts=on", "map --image-opts driver=raw,file.filename=raw,l2-cache-size=1M", "map --image-opts driver=raw,file.filename=raw,discard=unmap")
}

func TestTuning(t *testing.T) { differential(t, sample(tuned(), nil)) }
