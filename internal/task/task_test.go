package task

import (
	"context"
	"errors"
	"slices"
	"testing"
)

func TestTask(t *testing.T) {
	enough := errors.New("enough")
	ctx, stop := context.WithCancelCause(t.Context())
	var told [][2]int64
	k := New(ctx, func(done, total int64) { told = append(told, [2]int64{done, total}) })
	k.Expect(3)
	first := k.Step(1)
	stop(enough)
	second := k.Step(1)
	k.Settle()
	if err := k.Step(2); first != nil || !errors.Is(second, enough) || err != nil {
		t.Errorf("steps returned %v, then, stopped, %v, then, settled, %v", first, second, err)
	}
	k.Expect(2)
	k.Finish()
	k.Finish()
	if want := [][2]int64{{1, 3}, {2, 3}, {4, 4}, {5, 5}}; !slices.Equal(told, want) {
		t.Errorf("progress was told %v, not %v", told, want)
	}
}

func TestNobodyFollows(t *testing.T) {
	var k *Task
	k.Expect(1)
	k.Settle()
	k.Finish()
	if err := k.Step(1); err != nil {
		t.Error(err)
	}
}
