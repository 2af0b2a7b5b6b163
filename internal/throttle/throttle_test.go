package throttle

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/diskimg/diskimg/block"
)

func TestCheck(t *testing.T) {
	for want, l := range map[string]Limits{
		"":                                               {Bytes: Limit{1, 10, 60}, ReadOps: Limit{Average: 5}, WriteOps: Limit{Average: most}, OpSize: 4096},
		"cannot be used at the same time":                {Bytes: Limit{Average: 1}, WriteBytes: Limit{Average: 1}},
		"must be within [0, 1000000000000000]":           {Ops: Limit{Average: most + 1}},
		"must be within [0, 1000000000000000] ":          {Ops: Limit{Average: -1}},
		"burst length set without burst rate":            {Ops: Limit{Average: 1, Seconds: 2}},
		"require corresponding bps/iops values":          {ReadOps: Limit{Burst: 1}},
		"bps_max/iops_max cannot be lower than bps/iops": {ReadBytes: Limit{Average: 2, Burst: 1}},
		"iops size requires an iops value to be set":     {Bytes: Limit{Average: 2}, OpSize: 1},
		"values cannot be used at the same time":         {Ops: Limit{5, 5, 0}, ReadOps: Limit{5, 5, 0}},
	} {
		err := l.Check()
		if want == "" && err != nil || want != "" && (!errors.Is(err, block.ErrInvalid) || !strings.Contains(err.Error(), strings.TrimSpace(want))) {
			t.Errorf("%+v: %v, want %q", l, err, want)
		}
	}
}

// TestTake counts how long a hundred requests that come at once have to wait.
func TestTake(t *testing.T) {
	for _, c := range []struct {
		limits Limits
		write  bool
		last   time.Duration // of the last request
	}{
		{Limits{}, false, 0},
		{Limits{Bytes: Limit{Average: 10_000}}, false, 9800 * time.Millisecond},
		{Limits{ReadBytes: Limit{Average: 10_000}}, true, 0},
		{Limits{WriteOps: Limit{Average: 10}}, true, 9800 * time.Millisecond},
		{Limits{WriteOps: Limit{Average: 10, Burst: 20, Seconds: 2}}, true, 5900 * time.Millisecond},
		{Limits{Ops: Limit{Average: 10}, OpSize: 500}, true, 19700 * time.Millisecond},
	} {
		if err := c.limits.Check(); err != nil {
			t.Fatal(err)
		}
		g, now := New(c.limits), time.Unix(1e9, 0)
		var last time.Duration
		for range 100 {
			last = g.take(now, 1000, c.write)
		}
		if (last - c.last).Abs() > time.Millisecond {
			t.Errorf("%+v: the last waits for %v, want %v", c.limits, last, c.last)
		}
		if late := g.take(now.Add(time.Hour), 1000, c.write); late != 0 {
			t.Errorf("%+v: an hour later it is %v", c.limits, late)
		}
	}
}
