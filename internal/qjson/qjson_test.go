package qjson

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		text string
		want any
	}{
		{"{}", map[string]any{}}, {" [] ", []any{}}, {"null", nil}, {"true", Literal("true")}, {`"a"`, "a"},
		{`{"a": {"b": [1, "2", false, null]}, 'c': 'd"e'}`, map[string]any{"a": map[string]any{"b": []any{Literal("1"), "2", Literal("false"), nil}}, "c": `d"e`}},
		{`"\"\'\\\/\b\f\n\r\tä\u00e4\ud83d\ude00"`, "\"'\\/\b\f\n\r\tää😀"},
		{"-0", Literal("0")}, {"-12", Literal("-12")}, {"18446744073709551615", Literal("18446744073709551615")}, {"99999999999999999999", Literal("1e+20")},
		{"1e3", Literal("1000")}, {"1.50", Literal("1.5")}, {"0.1", Literal("0.10000000000000001")}, {"-1.5E-7", Literal("-1.4999999999999999e-07")},
		{strings.Repeat(`[`, 1024) + strings.Repeat(`]`, 1024), nil},
	}
	for _, test := range tests {
		got, err := Parse(test.text)
		if err != nil || !reflect.DeepEqual(got, test.want) && test.text[1] != '[' {
			t.Errorf("%.40s: %#v, %v, want %#v", test.text, got, err, test.want)
		}
	}
}

// TestErrors has what QEMU says; cli.TestNames compares more of it.
func TestErrors(t *testing.T) {
	tests := map[string][]string{
		"Expecting a JSON value":                                          {"", " \t"},
		"Expecting at most one JSON value":                                {"{}}", "1x", "1,2", `"a"b`, "true false", "0a", "1.5.5", `{} "`},
		"JSON nesting depth limit exceeded":                               {strings.Repeat("[", 1025), strings.Repeat(`{"a":`, 1025)},
		"JSON parse error, premature EOI":                                 {"{", "[", `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, "[1", "[1,", "[[1]"},
		"JSON parse error, expecting value":                               {"}", "]", ",", ":", "{,}", "[,]", "[1,]", `{"a":}`, `{"a":1,}`, "{]", "[}", `{"a"::1}`},
		"JSON parse error, missing : in object pair":                      {`{"a"}`, `{"a" 1}`, `{"a" "b"}`},
		"JSON parse error, key is not a string in object":                 {"{1:1}", "{null:1}", "{[]:1}", "{{}:1}", `{"a":1,3}`},
		"JSON parse error, expected separator in dict":                    {`{"a":1 "b":2}`, `{"a":1]`, `{"a":1:2}`, `{"a":true1}`, `{"a":0x10}`},
		"JSON parse error, expected separator in list":                    {"[1 2]", "[1}", `{"a":[1}`},
		"JSON parse error, duplicate key":                                 {`{"a":1,"a":2}`, `{"a":{"b":1,"b":2}}`},
		"JSON parse error, invalid keyword 'foo'":                         {"foo", "{foo:1}", "fooBar", "foo1"},
		"JSON parse error, invalid escape sequence in string":             {`"\x41"`, `{"a":"\U1234"}`},
		"JSON parse error, invalid UTF-8 sequence in string":              {"\"x\xc3\"", "\"\xef\xbf\xbf\""},
		`JSON parse error, \u12" is not a valid Unicode character`:        {`{"a":"\u12"}`},
		`JSON parse error, \ud83d is not a valid Unicode character`:       {`"\ud83d"`, `"\ud83dx"`, `"\ud83d\u0041"`},
		`JSON parse error, \ud83f\udfff is not a valid Unicode character`: {`"\ud83f\udfff"`},
		`JSON parse error, \ufffe is not a valid Unicode character`:       {`"\ufffe"`},
		"JSON parse error, stray 'T'":                                     {"True"},
		`JSON parse error, stray '"abc'`:                                  {`"abc`},
		`JSON parse error, stray ''a\'`:                                   {`'a\`},
		"JSON parse error, stray '\"x\t'":                                 {"{\"a\":\"x\ty\"}"},
		"JSON parse error, stray '\"\xff'":                                {"\"\xff\""},
		"JSON parse error, stray '-}'":                                    {`{"a":-}`},
		"JSON parse error, stray '-'":                                     {"-"},
		"JSON parse error, stray '-01'":                                   {"-01"},
		"JSON parse error, stray '00'":                                    {"00", "001"},
		"JSON parse error, stray '1.}'":                                   {`{"a":1.}`},
		"JSON parse error, stray '1e+x'":                                  {"1e+x"},
		"JSON parse error, stray '%'":                                     {"%d", `{"a":%s}`},
		"JSON parse error, stray '!'":                                     {`{"a" 1 !}`, `{"a":1!`},
	}
	for want, texts := range tests {
		for _, text := range texts {
			if v, err := Parse(text); err == nil || err.Error() != want {
				t.Errorf("%.40s: %v, %v, want %s", text, v, err, want)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"a":[1,-2.5e3,"\u00e4",null,true]}`)
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := Parse(text); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}
