// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// A field of a request is absent, null, empty or given. The reader tells these
// four apart before the framework sees the request, and replaces the request's
// data by canonical values, so that every handler, item of a batch and query
// parameter is read by the same rules (docs/requests.md).

// input is a request, or an item of a batch, that was read.
type input struct {
	fields fieldSet
	// values are canonical, by field; nil is a null.
	values map[string]any
	patch  bool
	// warnings say what was mended of the texts that are never refused.
	warnings []string
}

// readValues reads data by the rules of the fields. Which of several mistakes is
// told is fixed: the first by the name of its field.
func (s fieldSet) readValues(data map[string]any, patch bool) (*input, error) {
	values := maps.Clone(data)
	if values == nil {
		values = map[string]any{}
	}
	return s.readInPlace(values, patch)
}

// readInPlace is readValues for data that nobody else holds.
func (s fieldSet) readInPlace(data map[string]any, patch bool) (*input, error) {
	in := &input{fields: s, values: data, patch: patch}
	for name, raw := range data {
		f, known := s[name]
		if !known {
			return nil, s.firstMistake(data, patch)
		}
		value, err := in.read(name, &f, raw)
		if err != nil {
			return nil, s.firstMistake(data, patch)
		}
		data[name] = value
	}
	return in, nil
}

// firstMistake is the one that is told of what is wrong with data.
func (s fieldSet) firstMistake(data map[string]any, patch bool) error {
	in := &input{fields: s, patch: patch}
	for _, name := range slices.Sorted(maps.Keys(data)) {
		f, known := s[name]
		if !known {
			return s.unknown(name, "see the path's help for the fields it takes")
		}
		if _, err := in.read(name, &f, data[name]); err != nil {
			return err
		}
	}
	return nil
}

func (in *input) read(name string, f *field, raw any) (any, error) {
	if raw == nil {
		return nil, nil
	}
	if text, ok := raw.(string); ok && f.secret && f.kind == kindText {
		return text, f.checkEmpty(name, text)
	}
	if isEmpty(raw) {
		if f.empty != emptyTaken {
			return nil, f.isEmpty(name)
		}
		return f.none(), nil
	}
	value, m := f.convert(raw, in.patch)
	if m != nil && f.free != nil && f.free.cleaned {
		in.warn("%s: was left out, because it %s", name, m.rule)
		return nil, nil
	}
	if m != nil {
		return nil, m.of(name, f, raw)
	}
	if f.empty == emptyNever && size(value) == 0 {
		return nil, f.isEmpty(name)
	}
	if len(f.choices) > 0 && !slices.Contains(f.choices, value.(string)) {
		return nil, refusal.New(name, value, "must be one of "+strings.Join(f.choices, ", "), "choose one")
	}
	if f.free != nil {
		return in.freeText(name, f.free, value.(string))
	}
	return value, nil
}

// freeText holds a text to its rules, or mends it where it must not be refused.
func (in *input) freeText(name string, rule *freeText, text string) (any, error) {
	switch {
	case rule.raw:
		return text, nil
	case !rule.cleaned:
		return text, policy.CheckText(name, text, rule.limit, rule.lines)
	}
	return in.cleaned(name, rule, text), nil
}

// cleaned is the text as it is kept, with a warning where that differs.
func (in *input) cleaned(name string, rule *freeText, text string) string {
	clean, changed := policy.CleanText(text, rule.limit, rule.lines)
	if changed {
		in.warn("%s: control characters were taken out, or the text was cut, before it was kept", name)
	}
	return clean
}

// scrub makes a text that was read raw fit to be kept. The secrets are the keys
// that the request names, as far as they have not this engine's form.
func (in *input) scrub(name string, secrets ...string) {
	if in.given(name) {
		in.values[name] = in.cleaned(name, in.fields[name].free, keyformat.Scrub(in.text(name), secrets...))
	}
}

// warn adds a warning to the answer.
func (in *input) warn(format string, args ...any) {
	in.warnings = append(in.warnings, fmt.Sprintf(format, args...))
}

// checkEmpty refuses an empty text that may hold a key, unless empty is an answer.
func (f *field) checkEmpty(name, text string) error {
	if text == "" && f.empty != emptyTaken {
		return f.isEmpty(name)
	}
	return nil
}

func (f *field) isEmpty(name string) error {
	todo := map[fieldKind]string{
		kindSwitch: "true or false", kindInteger: "a number", kindSequence: "a number", kindNumber: "a number",
		kindDuration: "a duration", kindInstant: "a time or a duration", kindTime: "a time", kindList: "a list", kindMap: "name=value", kindObjects: "an array",
	}[f.kind]
	return refusal.New(name, nil, "is empty", "leave it out, or give "+cmp.Or(todo, "a text")+"; an unset variable looks like this")
}

// none is the empty value of the field's kind.
func (f *field) none() any {
	switch f.kind {
	case kindList:
		return []string{}
	case kindMap:
		return map[string]string{}
	default:
		return ""
	}
}

func size(value any) int {
	switch v := value.(type) {
	case []string:
		return len(v)
	case map[string]string:
		return len(v)
	case map[string]any:
		return len(v)
	case []any:
		return len(v)
	default:
		return -1
	}
}

// plainName matches words; hardly a key is without digits, or so short.
var plainName = regexp.MustCompile(`^[A-Za-z][A-Za-z_-]{0,24}$`)

// unknown refuses a field that the path does not take. Its name is shown only
// where it looks like one: anything may stand there, a key too.
func (s fieldSet) unknown(name, todo string) error {
	if !plainName.MatchString(name) {
		return refusal.New("field", nil, "unknown field", todo)
	}
	if near := s.nearest(name); near != "" {
		todo = "did you mean " + near + "? " + strings.ToUpper(todo[:1]) + todo[1:]
	}
	return refusal.New(name, nil, "unknown field", todo)
}

// nearest is the field whose name differs from name by two letters at most.
func (s fieldSet) nearest(name string) string {
	best, distance := "", 3
	for _, known := range slices.Sorted(maps.Keys(s)) {
		if d := editDistance(name, known); d < distance {
			best, distance = known, d
		}
	}
	return best
}

// editDistance counts the letters to insert, delete or change (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// given reports whether the request says something for the field: not where it
// is absent or null.
func (in *input) given(name string) bool { return in.values[name] != nil }

// resets reports whether a patch puts the field back to its default.
func (in *input) resets(name string) bool {
	value, named := in.values[name]
	return in.patch && named && value == nil
}

// text is the field's text, its default where it is not given.
func (in *input) text(name string) string { return valueOf[string](in, name) }

// flag reports whether the field's switch is on, by its default where it is not given.
func (in *input) flag(name string) bool { return valueOf[bool](in, name) }

// integer is the field's number, its default where it is not given.
func (in *input) integer(name string) int64 {
	if !in.given(name) {
		n, _ := in.fields[name].def.(int)
		return int64(n)
	}
	return valueOf[int64](in, name)
}

// seconds is the field's duration; false where it is not given.
func (in *input) seconds(name string) (policy.Seconds, bool) {
	return policy.Seconds(valueOf[int](in, name)), in.given(name)
}

// list is the field's list; nil where it is not given.
func (in *input) list(name string) []string { return valueOf[[]string](in, name) }

// pairs is the field's map; nil where it is not given.
func (in *input) pairs(name string) map[string]string { return valueOf[map[string]string](in, name) }

// time is the field's time; the zero time where it is not given.
func (in *input) time(name string) time.Time { return valueOf[time.Time](in, name) }

// objects is the field's array; nil where it is not given.
func (in *input) objects(name string) []any { return valueOf[[]any](in, name) }

func valueOf[T any](in *input, name string) T {
	value, ok := in.values[name].(T)
	if !ok {
		value, _ = in.fields[name].def.(T)
	}
	return value
}

// instant is a time as a request gives it: an instant, or a time from now on.
type instant struct {
	at   time.Time
	in   time.Duration
	text string
}

const (
	maxActivateAhead = 366 * 24 * time.Hour
	instantTodo      = "give a time such as 2026-01-31T08:00:00Z or a duration from now such as 90m"
)

// instant reads the field's time; false where it is not given.
func (in *input) instant(name string) (instant, bool, error) {
	if !in.given(name) {
		return instant{}, false, nil
	}
	text := in.text(name)
	i := instant{text: text}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		i.at = at.UTC()
		if i.at.Year() < 1970 || i.at.Year() > 9999 {
			return instant{}, false, refusal.New(name, text, "is no time that can come", instantTodo)
		}
		return i, true, nil
	}
	d, m := readDuration(text)
	if m != nil {
		return instant{}, false, refusal.New(name, text, "is neither a time nor a duration: it "+m.rule, instantTodo)
	}
	n := int64(d.(int))
	if n >= 1e9 { // Unix seconds: as a duration that would be over 30 years
		i.at = time.Unix(n, 0).UTC()
	} else {
		i.in = time.Duration(n) * time.Second
	}
	return i, true, nil
}

// moment reads the field's time, RFC 3339 or Unix seconds; zero where it is not
// given.
func (in *input) moment(name string) (time.Time, error) {
	if !in.given(name) {
		return time.Time{}, nil
	}
	text := in.text(name)
	at, err := time.Parse(time.RFC3339, text)
	if seconds, m := exact(json.Number(text)); err != nil && integerForm.MatchString(text) && m == nil {
		at, err = time.Unix(seconds, 0), nil
	}
	if err != nil || at.Year() < 1970 || at.Year() > 9999 {
		return time.Time{}, refusal.New(name, text, "is no time", "give one such as 2026-01-31T08:00:00Z, or Unix seconds")
	}
	return at.UTC(), nil
}

// from is the instant, seen from now. It is refused if it is over, or too far
// ahead.
func (i instant) from(name string, now time.Time) (time.Time, error) {
	at := i.at
	if at.IsZero() {
		at = now.Add(i.in)
	}
	switch {
	case at.Before(now):
		return time.Time{}, refusal.New(name, i.text, "is in the past; it is "+stamp(now)+" here", instantTodo)
	case at.Sub(now) > maxActivateAhead:
		return time.Time{}, refusal.New(name, i.text, "is more than 366 days ahead", "choose an earlier time")
	}
	return at, nil
}

// hasBody reports whether the operation has a body; the others have query
// parameters.
func hasBody(op logical.Operation) bool {
	return op == logical.CreateOperation || op == logical.UpdateOperation || op == logical.PatchOperation
}
