package qjson

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// This file is the words of JSON: brackets, strings, numbers, keywords.

const blanks = " \t\r\n"

// cutToken returns the first token of text, empty if there is none, and what
// follows it.
func cutToken(text string) (token, rest string, err error) {
	if text = strings.TrimLeft(text, blanks); text == "" {
		return "", "", nil
	}
	n, whole := 1, true
	switch c := text[0]; {
	case strings.IndexByte("{}[]:,", c) >= 0:
	case c == '"' || c == '\'':
		n, whole = stringLength(text)
	case c == '-' || isDigit(c):
		n, whole = numberLength(text)
	case 'a' <= c && c <= 'z':
		for n < len(text) && 'a' <= text[n] && text[n] <= 'z' {
			n++
		}
	default:
		whole = false
	}
	if !whole {
		return "", "", parseError("stray '%s'", text[:n])
	}
	return text[:n], text[n:], nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// stringLength returns how long the string is that text begins with, or, if it
// does not end, how much of it can be one.
func stringLength(text string) (n int, whole bool) {
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == text[0]:
			return i + 1, true
		case c < ' ' || c >= 0xf8:
			return i + 1, false
		case c == '\\':
			i++
		}
	}
	return len(text), false
}

// numberLength returns how long the number is that text begins with, or, if it
// is none, where that shows.
func numberLength(text string) (n int, whole bool) {
	if text[0] == '-' {
		n++
	}
	whole = digits(text, &n)
	if first := strings.TrimLeft(text[:n], "-"); len(first) > 1 && first[0] == '0' {
		return n - len(first) + 2, false
	}
	if whole && n < len(text) && text[n] == '.' {
		n++
		whole = digits(text, &n)
	}
	if whole && n < len(text) && text[n]|0x20 == 'e' {
		n++
		if n < len(text) && (text[n] == '+' || text[n] == '-') {
			n++
		}
		whole = digits(text, &n)
	}
	if !whole {
		n = min(n+1, len(text))
	}
	return n, whole
}

// digits moves n behind the digits in text and reports whether there is one.
func digits(text string, n *int) bool {
	start := *n
	for *n < len(text) && isDigit(text[*n]) {
		*n++
	}
	return *n > start
}

var escapes = map[byte]byte{'"': '"', '\'': '\'', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// unquote returns what a string says.
func unquote(token string) (any, error) {
	text := token[1 : len(token)-1]
	var b strings.Builder
	for text != "" {
		part, after, escaped := strings.Cut(text, `\`)
		if !wellFormed(part) {
			return nil, parseError("invalid UTF-8 sequence in string")
		}
		b.WriteString(part)
		text = after
		switch {
		case !escaped:
		case text[0] == 'u':
			r, n, err := unicodeEscape(token[len(token)-len(text)-2:])
			if err != nil {
				return nil, err
			}
			b.WriteRune(r)
			text = text[n-1:]
		case escapes[text[0]] == 0:
			return nil, parseError("invalid escape sequence in string")
		default:
			b.WriteByte(escapes[text[0]])
			text = text[1:]
		}
	}
	return b.String(), nil
}

// wellFormed reports whether text is of characters.
func wellFormed(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, noCharacter)
}

// noCharacter reports whether Unicode has set a code aside.
func noCharacter(r rune) bool { return r&0xfffe == 0xfffe || 0xfdd0 <= r && r <= 0xfdef }

// unicodeEscape returns what text, which is the rest of a string from an escape
// on, begins with, and the length of that: six bytes, or twelve for two halves.
func unicodeEscape(text string) (r rune, n int, err error) {
	half := func(at int) rune {
		if len(text) < at+6 || text[at:at+2] != `\u` {
			return -1
		}
		v, err := strconv.ParseUint(text[at+2:at+6], 16, 16)
		if err != nil {
			return -1
		}
		return rune(v)
	}
	r, n = half(0), 6
	if utf16.IsSurrogate(r) {
		if low := utf16.DecodeRune(r, half(6)); low != utf8.RuneError {
			r, n = low, 12
		}
	}
	if r < 0 || utf16.IsSurrogate(r) || noCharacter(r) {
		return 0, 0, parseError("%s is not a valid Unicode character", text[:min(n, len(text))])
	}
	return r, n, nil
}
