package blkdebug_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/storage/blkdebug"
)

// What is wrong with a configuration is said as QEMU says it.
func TestParseErrors(t *testing.T) {
	long := "# " + strings.Repeat("x", 1<<20)
	for config, want := range map[string]string{
		"[foo]":                                  "There is no option group 'foo'",
		"[inject-error":                          "Missing event name for rule",
		"event = \"l2_load\"":                    "no group defined",
		"[inject-error]":                         "Missing event name for rule",
		"[set-state]\n":                          "Missing event name for rule",
		"[inject-error]\nevent = \"foo\"":        "invalid parameter value: foo",
		"[inject-error]\nevent = l2_load":        "invalid parameter value: ",
		"[inject-error]\nevent":                  "invalid parameter value: ",
		"[inject-error]\nevent=\"l2_load\"":      "Invalid parameter 'event=\"l2_load\"'",
		"[inject-error]\nnew_state = \"1\"":      "Invalid parameter 'new_state'",
		inject("errno = \"x\""):                  "Parameter 'errno' expects a number",
		inject("state = \"\""):                   "Parameter 'state' expects a number",
		inject("sector = \"1k\""):                "Parameter 'sector' expects a number",
		inject("once = \"x\""):                   "Parameter 'once' expects 'on' or 'off'",
		inject("immediately = \"1\""):            "Parameter 'immediately' expects 'on' or 'off'",
		inject("iotype = \"x\""):                 "invalid parameter value: x",
		"[set-state]\nevent = \"none\"\nerrno":   "Invalid parameter 'errno'",
		long:                                     "the configuration of blkdebug has 1048578 bytes, the limit is 1048576",
		inject("errno = \"0x5\"\nonce = \"on\""): "",
		"# a\n\n[ x":                             "There is no option group ''",
	} {
		_, _, err := blkdebug.Parse([]byte(config), nil)
		if got := text(err); got != want {
			t.Errorf("%.60q: %q, want %q", config, got, want)
		}
	}
}

func inject(more string) string {
	return "[inject-error \"name\"]\n\t event = \"l2_load\" \n# a comment\n" + more
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestParseOptions(t *testing.T) {
	for _, c := range []struct{ options, want, rest string }{
		{"inject-error.0.event=l2_load inject-error.1.event=l1_update inject-error.1.errno=7 align=512", "", "align"},
		{"inject-error.event=l2_load", "", ""},
		{"inject-error.0.event=x", "invalid parameter value: x", ""},
		{"inject-error.0.errno=5", "Missing event name for rule", ""},
		{"inject-error.1.event=l2_load", "Unused option '1.event' for [inject-error]", ""},
		{"inject-error.x.event=l2_load", "Unused option 'x.event' for [inject-error]", ""},
		{"inject-error.0.event=l2_load inject-error.0.foo=1", "[inject-error] section doesn't support the option 'foo'", ""},
		{"set-state.0.event=l2_load set-state.0.errno=1", "[set-state] section doesn't support the option 'errno'", ""},
		{"set-state.0.event=l2_load set-state.0.new_state=2", "", ""},
	} {
		options := map[string]string{}
		for pair := range strings.FieldsSeq(c.options) {
			key, value, _ := strings.Cut(pair, "=")
			options[key] = value
		}
		_, rest, err := blkdebug.Parse(nil, options)
		if got := text(err); got != c.want {
			t.Errorf("%s: %q, want %q", c.options, got, c.want)
		}
		for key := range maps.Keys(rest) {
			if key != c.rest {
				t.Errorf("%s: %s is left over", c.options, key)
			}
		}
	}
}
