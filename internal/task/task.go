// Package task lets who waits for a long operation see how far it is, and stop it.
package task

import "context"

// Task is one operation on its way. Its methods are not called concurrently. A nil
// one is an operation that nobody follows.
type Task struct {
	ctx         context.Context
	progress    func(done, total int64)
	done, total int64
}

// New follows an operation. It can be stopped by ctx, and tells progress, if that
// is not nil, how many of its steps are done.
func New(ctx context.Context, progress func(done, total int64)) *Task {
	return &Task{ctx: ctx, progress: progress}
}

// Expect says that n more steps are to come.
func (t *Task) Expect(n int64) {
	if t != nil {
		t.total += n
	}
}

// Step says that n more steps are done. An error is why the operation is to go no
// further.
func (t *Task) Step(n int64) error {
	if t == nil {
		return nil
	}
	if t.done += n; t.progress != nil {
		t.progress(t.done, max(t.done, t.total))
	}
	if t.ctx == nil {
		return nil
	}
	return context.Cause(t.ctx)
}

// Finish says that the operation is done, also if that took fewer steps than were
// expected. It is not stopped any more.
func (t *Task) Finish() {
	t.Settle()
	if t != nil && t.done < t.total {
		_ = t.Step(t.total - t.done)
	}
}

// Settle says that what was asked for has come about: from now on nothing stops the
// operation, which only clears up.
func (t *Task) Settle() {
	if t != nil {
		t.ctx = nil
	}
}
