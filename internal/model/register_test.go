package model

import (
	"bytes"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/internal/stamp"
)

// moment is an operation on one sector, for histories written by hand.
func moment(action string, id uint32, begin, end int64, got []byte) event {
	return event{Op: Op{ID: id, Action: action, Len: sector}, begin: begin, end: end, got: got}
}

func content(id uint32) []byte {
	p := make([]byte, sector)
	if id > 0 {
		stamp.Fill(p, 0, id)
	}
	return p
}

func TestRegister(t *testing.T) {
	half := append(content(1)[:sector/2], content(2)[sector/2:]...)
	elsewhere := make([]byte, sector)
	stamp.Fill(elsewhere, 4096, 1)
	w := func(id uint32, begin, end int64) event { return moment("write", id, begin, end, nil) }
	d := func(begin, end int64) event { return moment("discard", 9, begin, end, nil) }
	r := func(begin, end int64, got []byte) event { return moment("read", 0, begin, end, got) }
	for _, c := range []struct {
		name   string
		events []event
		want   string // part of the error, "" for none
	}{
		{"one after the other", []event{w(1, 1, 2), r(3, 4, content(1)), w(2, 5, 6), r(7, 8, content(2))}, ""},
		{"lost", []event{w(1, 1, 2), r(3, 4, content(0))}, "finds zeros"},
		{"old", []event{w(1, 1, 2), w(2, 3, 4), r(5, 6, content(1))}, "finds write 1"},
		{"early", []event{r(1, 2, content(1)), w(1, 3, 4)}, "finds write 1"},
		{"elsewhere", []event{w(1, 1, 2), r(3, 4, elsewhere)}, "finds foreign bytes"},
		{"both at once", []event{w(1, 1, 4), w(2, 2, 3), r(5, 6, content(1))}, ""},
		{"under way, old", []event{w(1, 1, 2), w(2, 3, 6), r(4, 5, content(1))}, ""},
		{"under way, new", []event{w(1, 1, 2), w(2, 3, 6), r(4, 5, content(2))}, ""},
		{"new, then old", []event{w(1, 1, 2), w(2, 3, 10), r(4, 5, content(2)), r(6, 7, content(1))}, "finds write 1"},
		{"a mix under way", []event{w(1, 1, 2), w(2, 3, 6), r(4, 5, half)}, ""},
		{"a mix that stays", []event{w(1, 1, 4), w(2, 2, 3), r(5, 6, half)}, "none of which was under way"},
		{"discarded", []event{w(1, 1, 2), d(3, 4), r(5, 6, content(0))}, ""},
		{"discard ignored", []event{w(1, 1, 2), d(3, 4), r(5, 6, content(1))}, ""},
		{"zeroed and not", []event{w(1, 1, 2), moment("zero", 3, 3, 4, nil), r(5, 6, content(1))}, "finds write 1"},
		{"older than a discard", []event{w(1, 1, 2), w(2, 3, 4), d(5, 6), r(7, 8, content(1))}, "finds write 1"},
	} {
		h := &history{size: sector, events: append([]event{r(0, 0, content(0))}, c.events...)}
		err := h.register(0).judge()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error is %v, want %q", c.name, err, c.want)
		}
	}
}

// What a sector held at first is a value of its own.
func TestRegisterInitial(t *testing.T) {
	first := bytes.Repeat([]byte{7}, sector)
	h := &history{size: sector, events: []event{
		moment("read", 0, 0, 0, first), moment("read", 0, 1, 2, first), moment("write", 1, 3, 4, nil), moment("read", 0, 5, 6, first),
	}}
	if err := h.register(0).judge(); err == nil || !strings.Contains(err.Error(), "finds the first content") {
		t.Errorf("error is %v", err)
	}
}
