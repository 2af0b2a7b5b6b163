// Package qjson reads JSON as QEMU does on its command lines: strings may be in
// single quotes, and what is wrong is said in QEMU's words.
package qjson

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
)

// Literal is a number or a truth value, as it is written.
type Literal string

// maxDepth is how deep lists and objects may be nested.
const maxDepth = 1024

// errEnd says that there was to be more.
var errEnd = parseError("premature EOI")

func parseError(format string, args ...any) error {
	return failure(fmt.Sprintf("JSON parse error, "+format, args...))
}

// failure is an error in QEMU's words.
type failure string

func (f failure) Error() string { return string(f) }

// Parse returns the value that text is: nil, a Literal, a string, a []any or a
// map[string]any, in which no key is twice.
func Parse(text string) (any, error) {
	tokens, rest, err := firstValue(text)
	if err != nil {
		return nil, err
	}
	if len(tokens) == 0 {
		return nil, failure("Expecting a JSON value")
	}
	p := parser{tokens: tokens}
	v, err := p.value()
	switch {
	case err != nil:
		return nil, err
	case len(p.tokens) > 0 || strings.Trim(rest, blanks) != "":
		return nil, failure("Expecting at most one JSON value")
	}
	return v, nil
}

// firstValue returns the tokens up to the end of the first value, for which it
// does not matter yet what stands in its brackets, and the text after it.
func firstValue(text string) (tokens []string, rest string, err error) {
	braces, brackets := 0, 0
	for {
		token, after, err := cutToken(text)
		if token == "" || err != nil {
			return tokens, "", err
		}
		tokens, text = append(tokens, token), after
		switch token {
		case "{":
			braces++
		case "}":
			braces--
		case "[":
			brackets++
		case "]":
			brackets--
		}
		switch {
		case braces < 0 || brackets < 0 || braces == 0 && brackets == 0:
			return tokens, text, nil
		case braces+brackets > maxDepth:
			return nil, "", failure("JSON nesting depth limit exceeded")
		}
	}
}

// parser reads a value from its tokens.
type parser struct{ tokens []string }

// next takes a token, empty at the end.
func (p *parser) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	token := p.tokens[0]
	p.tokens = p.tokens[1:]
	return token
}

// take takes the next token if it is this one.
func (p *parser) take(token string) bool {
	found := len(p.tokens) > 0 && p.tokens[0] == token
	if found {
		p.tokens = p.tokens[1:]
	}
	return found
}

func (p *parser) value() (any, error) {
	token := p.next()
	switch {
	case token == "":
		return nil, errEnd
	case token == "{":
		return p.object()
	case token == "[":
		return p.list()
	case strings.Contains("}]:,", token):
		return nil, parseError("expecting value")
	case token == "null":
		return nil, nil
	case token == "true" || token == "false":
		return Literal(token), nil
	case token[0] == '"' || token[0] == '\'':
		return unquote(token)
	case 'a' <= token[0] && token[0] <= 'z':
		return nil, parseError("invalid keyword '%s'", token)
	}
	return number(token), nil
}

func (p *parser) object() (any, error) {
	object := map[string]any{}
	if p.take("}") {
		return object, nil
	}
	for {
		if err := p.pair(object); err != nil {
			return nil, err
		}
		switch token := p.next(); token {
		case "":
			return nil, errEnd
		case "}":
			return object, nil
		case ",":
		default:
			return nil, parseError("expected separator in dict")
		}
	}
}

func (p *parser) pair(object map[string]any) error {
	v, err := p.value()
	if err != nil {
		return err
	}
	key, ok := v.(string)
	switch colon := p.next(); {
	case !ok:
		return parseError("key is not a string in object")
	case colon == "":
		return errEnd
	case colon != ":":
		return parseError("missing : in object pair")
	}
	v, err = p.value()
	if _, twice := object[key]; twice && err == nil {
		return parseError("duplicate key")
	}
	object[key] = v
	return err
}

func (p *parser) list() (any, error) {
	list := []any{}
	if p.take("]") {
		return list, nil
	}
	for {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		switch p.next() {
		case "":
			return nil, errEnd
		case "]":
			return list, nil
		case ",":
		default:
			return nil, parseError("expected separator in list")
		}
	}
}

// number writes a number in the way in which QEMU does: one that is not whole,
// or has more than 64 bits, with at most 17 digits.
func number(token string) Literal {
	if n, err := strconv.ParseInt(token, 10, 64); err == nil {
		return Literal(strconv.FormatInt(n, 10))
	}
	if _, err := strconv.ParseUint(token, 10, 64); err == nil {
		return Literal(token)
	}
	f, _ := strconv.ParseFloat(token, 64) // too large is infinite
	return Literal(strconv.FormatFloat(f, 'g', 17, 64))
}

// escaped are the characters that QEMU writes in a short way.
var escaped = map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}

// Quote writes a string as QEMU does: everything but ASCII is escaped.
func Quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		short, special := escaped[r]
		switch {
		case special:
			b.WriteString(short)
		case ' ' <= r && r < 0x7f:
			b.WriteRune(r)
		default:
			for _, unit := range utf16.AppendRune(nil, r) {
				fmt.Fprintf(&b, `\u%04X`, unit)
			}
		}
	}
	b.WriteByte('"')
	return b.String()
}
