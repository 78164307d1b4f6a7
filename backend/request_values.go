// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// mistake is what is wrong with a value, and what to do about it. It never holds
// any part of the value.
type mistake struct{ rule, todo string }

func (m *mistake) of(name string, f *field, raw any) error {
	switch raw.(type) {
	case []any, []string, map[string]any, map[string]string:
		text, err := json.Marshal(raw)
		if raw = asWritten(text); err != nil {
			raw = nil
		}
	}
	if f.secret {
		raw = nil
	}
	return refusal.New(name, raw, m.rule, m.todo)
}

// asWritten is a value that is shown as it is.
type asWritten string

// maxExact is the largest integer that every client can write: beyond it JSON
// numbers pass through floating point and change.
const maxExact = 1 << 53

// maxSeconds is the longest duration that nanoseconds can count: a longer one
// would come out short.
const maxSeconds = math.MaxInt64 / int64(time.Second)

var (
	integerForm = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	numberForm  = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?$`)
	// The comma after which another name follows is meant to begin another pair.
	secondPair = regexp.MustCompile(`,\s*[A-Za-z0-9._-]+=`)
)

// isEmpty reports whether the value is the empty text, or nothing but space.
func isEmpty(raw any) bool {
	text, ok := raw.(string)
	return ok && strings.TrimSpace(text) == ""
}

// convert reads a value that is neither null nor empty. In a patch a map may
// hold nulls.
func (f *field) convert(raw any, patch bool) (any, *mistake) {
	switch f.kind {
	case kindText:
		return readText(raw)
	case kindInstant:
		return readText(raw) // which time it is depends on when it is asked
	case kindTime:
		return readTime(raw)
	case kindSwitch:
		return readSwitch(raw)
	case kindInteger, kindSequence:
		return readInteger(raw)
	case kindNumber:
		return readNumber(raw)
	case kindDuration:
		return readDuration(raw)
	case kindList:
		return readList(raw)
	case kindMap:
		return readMap(raw, patch)
	case kindCounts:
		return readCounts(raw)
	default:
		return readObjects(raw)
	}
}

// decimal is the text of a number as JSON and Go spell it; false for what is none.
func decimal(raw any) (string, bool) {
	switch v := raw.(type) {
	case json.Number:
		return v.String(), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	case int:
		return strconv.Itoa(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	default:
		return "", false
	}
}

func readText(raw any) (any, *mistake) {
	if text, ok := raw.(string); ok {
		return text, nil
	}
	if text, ok := decimal(raw); ok {
		return text, nil
	}
	return nil, &mistake{"is not a text", "give a text"}
}

// readTime takes a time as RFC 3339 writes it. The year 1, which programs write
// for no time, is no time that anybody means.
func readTime(raw any) (any, *mistake) {
	const todo = "give a time such as 2027-01-31T08:00:00Z"
	text, ok := raw.(string)
	if !ok {
		return nil, &mistake{"is not the text of a time", todo}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, &mistake{"is not a time as RFC 3339 writes it", todo}
	}
	if at = at.UTC(); at.Year() < 1970 || at.Year() > 9999 {
		return nil, &mistake{"is no time that can come", todo}
	}
	return at, nil
}

func readSwitch(raw any) (any, *mistake) {
	if v, ok := raw.(bool); ok {
		return v, nil
	}
	text, ok := raw.(string)
	if !ok {
		text, _ = decimal(raw)
	}
	switch text {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return nil, &mistake{"is neither true nor false", "write true or false"}
}

// exact is the integer that a JSON number or a text means: 3.0 is 3 as a number.
func exact(raw any) (int64, *mistake) {
	const todo = "give a whole number, such as 3"
	text, isText := raw.(string)
	if isText && !integerForm.MatchString(text) {
		return 0, &mistake{"is not a whole number in decimal", todo}
	}
	if !isText {
		var ok bool
		if text, ok = decimal(raw); !ok {
			return 0, &mistake{"is not a number", todo}
		}
	}
	n, ok := new(big.Rat).SetString(text)
	switch {
	case !ok || len(text) > 400:
		return 0, &mistake{"is not a number", todo}
	case !n.IsInt():
		return 0, &mistake{"is not a whole number", todo}
	case n.Num().CmpAbs(big.NewInt(maxExact)) > 0:
		return 0, &mistake{"is beyond 2^53, where numbers lose digits on their way", "give a smaller number"}
	}
	return n.Num().Int64(), nil
}

func readInteger(raw any) (any, *mistake) {
	n, m := exact(raw)
	if m != nil {
		return nil, m
	}
	return n, nil
}

func readNumber(raw any) (any, *mistake) {
	wrong := &mistake{"is not a number", "give a number such as 10 or 0.5"}
	text, isText := raw.(string)
	if isText && !numberForm.MatchString(text) {
		return nil, wrong
	}
	if !isText {
		var ok bool
		if text, ok = decimal(raw); !ok {
			return nil, wrong
		}
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return nil, wrong
	}
	return n, nil
}

var durationForm = regexp.MustCompile(`^(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h|d))+$`)

var (
	durationPart  = regexp.MustCompile(`([0-9.]+)([a-zµ]+)`)
	durationUnits = map[string]int64{"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9, "d": 86400e9}
)

// readDuration takes seconds, or a number with a unit, in any combination.
// Fractions of a second are refused rather than dropped: 900ms must not become
// 0, which means something else.
func readDuration(raw any) (any, *mistake) {
	const todo = "give whole seconds, or a duration such as 90s, 24h, 30d or 1h30m"
	text, isText := raw.(string)
	if !isText {
		var ok bool
		if text, ok = decimal(raw); !ok {
			return nil, &mistake{"is not a duration", todo}
		}
	}
	negative := strings.HasPrefix(text, "-")
	bare := strings.TrimPrefix(text, "-")
	if len(bare) > 64 {
		return nil, &mistake{"is not a duration", todo}
	}
	var total *big.Rat // seconds
	switch {
	case !isText || integerForm.MatchString(bare) || numberForm.MatchString(bare):
		var ok bool
		if total, ok = new(big.Rat).SetString(bare); !ok {
			return nil, &mistake{"is not a duration", todo}
		}
	case durationForm.MatchString(bare):
		total = new(big.Rat)
		for _, part := range durationPart.FindAllStringSubmatch(bare, -1) {
			n, ok := new(big.Rat).SetString(part[1])
			if !ok {
				return nil, &mistake{"is not a duration", todo}
			}
			total.Add(total, n.Mul(n, big.NewRat(durationUnits[part[2]], 1e9)))
		}
	default:
		return nil, &mistake{"is not a duration", todo}
	}
	switch {
	case negative && total.Sign() != 0:
		return nil, &mistake{"must not be negative", todo}
	case !total.IsInt():
		return nil, &mistake{"is not a whole number of seconds", "round it"}
	case total.Num().CmpAbs(big.NewInt(maxSeconds)) > 0:
		return nil, &mistake{"is longer than any duration here", "give a shorter one"}
	}
	return int(total.Num().Int64()), nil
}

// elements are the members of a list that is given as such, as the text of a
// JSON array, or as text with commas.
func elements(raw any) ([]any, *mistake) {
	const todo = "give a list, or text with commas"
	switch v := raw.(type) {
	case []any:
		return v, nil
	case []string:
		list := make([]any, len(v))
		for i := range v {
			list[i] = v[i]
		}
		return list, nil
	case string:
		if text := strings.TrimSpace(v); strings.HasPrefix(text, "[") {
			var list []any
			if decodeJSON(text, &list) != nil {
				return nil, &mistake{"begins like a JSON array and is none", todo}
			}
			return list, nil
		}
		var list []any
		for part := range strings.SplitSeq(v, ",") {
			list = append(list, part)
		}
		return list, nil
	}
	if text, ok := decimal(raw); ok {
		return []any{text}, nil
	}
	return nil, &mistake{"is not a list", todo}
}

func readList(raw any) (any, *mistake) {
	members, m := elements(raw)
	if m != nil {
		return nil, m
	}
	list := make([]string, 0, len(members))
	for _, member := range members {
		text, m := readText(member)
		if m != nil {
			return nil, &mistake{"has an element that is not a text", "give texts only"}
		}
		one := strings.TrimSpace(text.(string))
		if one == "" {
			return nil, &mistake{"has an empty element", "leave it out; look for a comma too many"}
		}
		list = append(list, one)
	}
	return list, nil
}

func readMap(raw any, patch bool) (any, *mistake) {
	const todo = `give name=value, such as team=shop, repeated for each name, or a JSON object such as {"team": "shop"}`
	object, isObject := map[string]any(nil), false
	switch v := raw.(type) {
	case map[string]any:
		object, isObject = v, true
	case map[string]string:
		object, isObject = make(map[string]any, len(v)), true
		for name, value := range v {
			object[name] = value
		}
	case string:
		if text := strings.TrimSpace(v); strings.HasPrefix(text, "{") {
			read, err := decodeObject(text)
			if twice := (*duplicate)(nil); errors.As(err, &twice) {
				return nil, &mistake{"has a name twice", "give each name once"}
			}
			if err != nil {
				return nil, &mistake{"begins like a JSON object and is none", todo}
			}
			object, isObject = read, true
		}
	}
	if !isObject {
		return readPairs(raw)
	}
	if patch {
		changes := make(map[string]any, len(object))
		for name, value := range object {
			if _, ok := value.(string); !ok && value != nil {
				return nil, &mistake{"has a value that is not a text", "write values in quotes; null removes a name"}
			}
			changes[name] = value
		}
		return changes, nil
	}
	pairs := make(map[string]string, len(object))
	for name, value := range object {
		text, ok := value.(string)
		if !ok {
			return nil, &mistake{"has a value that is not a text", "write values in quotes"}
		}
		pairs[name] = text
	}
	return pairs, nil
}

// readPairs reads name=value, once or repeated.
func readPairs(raw any) (any, *mistake) {
	const todo = `give name=value, such as team=shop, repeated for each name, or a JSON object such as {"team": "shop"}`
	var members []any
	switch v := raw.(type) {
	case string:
		members = []any{v}
	case []any, []string:
		members, _ = elements(v)
	default:
		return nil, &mistake{"is not a map", todo}
	}
	pairs := make(map[string]string, len(members))
	for _, member := range members {
		text, ok := member.(string)
		if !ok {
			return nil, &mistake{"has an element that is not name=value", todo}
		}
		name, value, found := strings.Cut(text, "=")
		name = strings.TrimSpace(name)
		if !found || name == "" {
			return nil, &mistake{"is not name=value", todo}
		}
		if secondPair.MatchString(value) {
			return nil, &mistake{"has a comma with another name= after it, which would all be one value", todo}
		}
		if _, twice := pairs[name]; twice {
			return nil, &mistake{"has a name twice", "give each name once"}
		}
		pairs[name] = value
	}
	return pairs, nil
}

func readCounts(raw any) (any, *mistake) {
	object, ok := raw.(map[string]any)
	if !ok {
		return nil, &mistake{"is not an object of counts", "give a number for each code"}
	}
	counts := make(map[string]int64, len(object))
	for name, value := range object {
		n, m := exact(value)
		if m != nil {
			return nil, m
		}
		counts[name] = n
	}
	return counts, nil
}

func readObjects(raw any) (any, *mistake) {
	const todo = "give an array of objects"
	switch v := raw.(type) {
	case []any:
		return v, nil
	case map[string]any:
		return []any{v}, nil
	case string:
		var list []any
		if text := strings.TrimSpace(v); strings.HasPrefix(text, "[") && decodeJSON(text, &list) == nil {
			return list, nil
		}
	}
	return nil, &mistake{"is not an array of objects", todo}
}

// duplicate is a name that stands twice in an object.
type duplicate struct{ name string }

func (*duplicate) Error() string { return "a name stands twice" }

var errTrailing = errors.New("something follows the JSON value")

// decodeJSON reads a JSON value, all of the text, numbers as they are written.
func decodeJSON(text string, into any) error {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("reading JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errTrailing
	}
	return nil
}

// decodeObject reads a JSON object. A name that stands twice, at any depth, is a
// duplicate: which of them counts would be a guess.
func decodeObject(text string) (map[string]any, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	value, err := decodeStrictly(dec, maxDepth)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errTrailing
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	return object, nil
}

// maxDepth is how deep the objects and arrays of a request may be nested.
const maxDepth = 16

func decodeStrictly(dec *json.Decoder, depth int) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("reading JSON: %w", err)
	}
	delim, isDelim := token.(json.Delim)
	if !isDelim {
		return token, nil
	}
	if depth == 0 {
		return nil, errors.New("reading JSON: nested too deep")
	}
	if delim == '[' {
		list := []any{}
		for dec.More() {
			value, err := decodeStrictly(dec, depth-1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err := dec.Token()
		return list, err
	}
	object := map[string]any{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("reading JSON: %w", err)
		}
		name, ok := token.(string)
		if !ok {
			return nil, errors.New("reading JSON: a name is not a text")
		}
		if _, twice := object[name]; twice {
			return nil, &duplicate{name}
		}
		if object[name], err = decodeStrictly(dec, depth-1); err != nil {
			return nil, err
		}
	}
	_, err = dec.Token()
	return object, err
}
