// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// clean is a text of the server on one line of at most so many characters: without
// control characters, and without those that turn the direction of what follows.
func clean(text string, limit int) string {
	text = strings.Map(func(c rune) rune {
		switch {
		case unicode.IsSpace(c):
			return ' '
		case unicode.IsControl(c), unicode.Is(unicode.Bidi_Control, c), c == unicode.ReplacementChar:
			return -1
		}
		return c
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if chars := []rune(text); len(chars) > limit {
		return string(chars[:limit-1]) + "…"
	}
	return text
}

const day = 24 * time.Hour

// span is a length of time in words, in its largest unit, as a person rounds it.
func span(d time.Duration) string {
	d = d.Abs()
	for _, u := range []struct {
		unit time.Duration
		from time.Duration
		name string
	}{
		{365 * day, 2 * 365 * day, "year"},
		{day, 2 * day, "day"},
		{time.Hour, 2 * time.Hour, "hour"},
		{time.Minute, 2 * time.Minute, "minute"},
	} {
		if d >= u.from {
			return count(int(d/u.unit), u.name)
		}
	}
	return count(int(d/time.Second), "second")
}

// relative is a time as seen from now.
func relative(t, now time.Time) string {
	switch d := t.Sub(now); {
	case d.Abs() < time.Second:
		return "now"
	case d > 0:
		return "in " + span(d)
	default:
		return span(d) + " ago"
	}
}

// count is a number with what it counts.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}

// more is a number of what is not shown; empty if that is nothing.
func more(n int) string {
	if n <= 0 {
		return ""
	}
	return number(n)
}

// number has its thousands apart.
func number(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// parseSpan reads a duration such as 30d or 36h.
func parseSpan(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return 0, fmt.Errorf("%q is no number of days", text)
		}
		return time.Duration(n) * day, nil
	}
	return time.ParseDuration(text)
}
