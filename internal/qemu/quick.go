package qemu

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

// quickSource has CPU time pass a hundred times as fast. By it QEMU finds out how
// many rounds of a hash take so long as a new key is to take: it calculates for
// seconds until it trusts the figure, and gives up if it sees no time pass at all.
// The images differ in the number of rounds only, which is another one each time.
const quickSource = `
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int getrusage(int who, struct rusage *u) {
	int r = syscall(SYS_getrusage, who, u);
	u->ru_utime.tv_sec = u->ru_utime.tv_sec * 100 + u->ru_utime.tv_usec / 10000;
	u->ru_utime.tv_usec = u->ru_utime.tv_usec % 10000 * 100;
	return r;
}
`

// Prepare sets the environment of a command that runs QEMU's programs, in the
// folder that it names. With a C compiler they get done with new keys at once;
// without, the tests take longer.
func Prepare(cmd *exec.Cmd) {
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	if library := quick(); library != "" {
		cmd.Env = append(cmd.Env, "LD_PRELOAD="+library)
	}
}

// quick returns the path of quickSource, compiled, empty if that can't be.
var quick = sync.OnceValue(func() string {
	cache, err := os.UserCacheDir()
	if err != nil || runtime.GOOS != "linux" {
		return ""
	}
	dir := filepath.Join(cache, "diskimg-test")
	path := filepath.Join(dir, fmt.Sprintf("quick-%.8x.so", sha256.Sum256([]byte(quickSource))))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if compile(dir, path) != nil {
		return ""
	}
	return path
})

// compile makes the library. Other processes may be doing so too.
func compile(dir, path string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	work, err := os.MkdirTemp(dir, "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	source, made := filepath.Join(work, "quick.c"), filepath.Join(work, "quick.so")
	if err := os.WriteFile(source, []byte(quickSource), 0o600); err != nil {
		return err
	}
	if err := exec.Command("cc", "-shared", "-fPIC", "-O", "-o", made, source).Run(); err != nil {
		return err
	}
	return os.Rename(made, path)
}
