// Package size reads and writes sizes as the command lines of disk image
// programs have them: "64k", "1.5G", "0x10000", and "1.5 GiB".
package size

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

var (
	// ErrSyntax: not a size.
	ErrSyntax = errors.New("not a size")
	// ErrRange: a size of 2^64 bytes or more.
	ErrRange = errors.New("size out of range")
)

const (
	units     = "BKMGTPE"
	hexDigits = "0123456789abcdefABCDEF"
	blanks    = " \t\n\v\f\r"
)

// Parse reads a size in bytes: decimal digits, which a fraction may follow if a
// suffix does, or 0x and hexadecimal digits; then at most one of the suffixes
// b, k, M, G, T, P, E in either case, each 1024 times the one before. Leading
// blanks and a plus sign are skipped. A fraction of a byte is rounded.
// The error is ErrSyntax or ErrRange.
func Parse(s string) (uint64, error) {
	s = strings.TrimPrefix(strings.TrimLeft(s, blanks), "+")
	if digits, ok := cutHex(s); ok {
		return parseHex(digits)
	}
	s, unit := cutSuffix(s)
	whole, fraction, _ := strings.Cut(s, ".")
	if !isDigits(whole) || whole == "" || !isDigits(fraction) {
		return 0, ErrSyntax
	}
	n, err := strconv.ParseUint(whole, 10, 64)
	if err != nil {
		return 0, ErrRange
	}
	extra, err := scaleFraction(fraction, unit)
	if err != nil {
		return 0, err
	}
	return scale(n, unit, extra)
}

// HexWithSuffix reports whether s is hexadecimal and has a suffix other than
// b: QEMU reads that and warns about it.
func HexWithSuffix(s string) bool {
	digits, ok := cutHex(strings.TrimPrefix(strings.TrimLeft(s, blanks), "+"))
	return ok && strings.ContainsAny(digits, "kKmMgGtTpP")
}

func cutHex(s string) (digits string, ok bool) {
	if len(s) < 3 || s[0] != '0' || s[1]|0x20 != 'x' || !strings.Contains(hexDigits, s[2:3]) {
		return "", false
	}
	return s[2:], true
}

// parseHex reads hexadecimal digits and a suffix. B and E are digits here.
func parseHex(s string) (uint64, error) {
	suffix := strings.TrimLeft(s, hexDigits)
	_, unit := cutSuffix(suffix)
	if len(suffix) > 1 || len(suffix) == 1 && unit == 0 {
		return 0, ErrSyntax
	}
	n, err := strconv.ParseUint(s[:len(s)-len(suffix)], 16, 64)
	if err != nil {
		return 0, ErrRange
	}
	return scale(n, unit, 0)
}

// cutSuffix returns what comes before the suffix, and the suffix as the power
// of 1024 that it stands for.
func cutSuffix(s string) (string, int) {
	last := max(0, len(s)-1)
	unit := strings.Index(units, strings.ToUpper(s[last:]))
	if unit < 0 || s == "" {
		return s, 0
	}
	return s[:last], unit
}

// scaleFraction turns the digits after a decimal point into bytes.
func scaleFraction(digits string, unit int) (uint64, error) {
	if digits == "" {
		return 0, nil
	}
	f, err := strconv.ParseFloat("0."+digits, 64)
	if err != nil || f != 0 && unit == 0 {
		return 0, ErrSyntax
	}
	return uint64(f*float64(uint64(1)<<(10*unit)) + 0.5), nil
}

func scale(n uint64, unit int, extra uint64) (uint64, error) {
	shift := 10 * unit
	if n > math.MaxUint64>>shift || n<<shift > math.MaxUint64-extra {
		return 0, ErrRange
	}
	return n<<shift + extra, nil
}

func isDigits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// Format writes n bytes with three significant digits and the unit in which
// the number is below 1000, as far as rounding leaves it there.
func Format(n int64) string {
	_, exp := math.Frexp(float64(n) / (1000.0 / 1024.0))
	unit := max(0, exp-1) / 10
	suffix := " B"
	if unit > 0 {
		suffix = " " + units[unit:unit+1] + "iB"
	}
	return fmt.Sprintf("%.3g", float64(n)/float64(uint64(1)<<(10*unit))) + suffix
}
