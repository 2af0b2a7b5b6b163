package tiny

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// Fails runs part of a test suite on a test of its own and returns what it
// failed with; it is empty if the part has passed or skipped. The suite does
// not fail t.
func Fails(t testing.TB, part func(testing.TB)) string {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		part(r)
	}()
	<-done
	return strings.Join(r.failures, "\n")
}

// recorder is a test that keeps its failures to itself.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Error(args ...any) { r.failures = append(r.failures, fmt.Sprint(args...)) }

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatal(args ...any) {
	r.Error(args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) FailNow() {
	r.Error("FailNow")
	runtime.Goexit()
}

func (r *recorder) Fail() { r.Error("Fail") }

func (r *recorder) Failed() bool { return len(r.failures) > 0 }

func (r *recorder) Skip(...any) { runtime.Goexit() }

func (r *recorder) Skipf(string, ...any) { runtime.Goexit() }

func (r *recorder) SkipNow() { runtime.Goexit() }

func (r *recorder) Log(...any) {}

func (r *recorder) Logf(string, ...any) {}
