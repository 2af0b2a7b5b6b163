package accept

import (
	"path/filepath"
	"testing"
)

// formats are all that can be made, as options of convert.
// checkers are those who can check them; qemu-img 7.2 finds a leak in all
// images with tables of two clusters, its own too.
var formats = []struct {
	name, options string
	checkers      []*tool
}{
	{"raw", "-O raw", nil},
	{"qcow2", "-O qcow2", []*tool{&theirs, &ours}},
	{"qed", "-O qed", []*tool{&theirs, &ours}},
	{"qed", "-O qed -o cluster_size=4k,table_size=2", []*tool{&ours}},
	{"vpc", "-O vpc -o force_size=on", nil},
	{"vpc", "-O vpc -o force_size=on,subformat=fixed", nil},
}

// TestFormats brings the disk from each format, as qemu-img writes it, into each
// format, and from there back to raw.
func TestFormats(t *testing.T) {
	raw, sum := disk(t)
	for _, from := range formats {
		t.Run("from "+from.options, func(t *testing.T) {
			src := filepath.Join(t.TempDir(), "source")
			theirs.convert(t, "-f raw "+from.options, raw, src)
			for _, to := range formats {
				t.Run(to.options, func(t *testing.T) {
					atOnce(t)
					dst := filepath.Join(t.TempDir(), "disk")
					ours.convert(t, "-f "+from.name+" "+to.options, src, dst)
					for _, p := range to.checkers {
						p.run(t, "check", "-f", to.name, dst)
					}
					holds(t, to.name, dst, raw, sum)
				})
			}
		})
	}
}
