// SPDX-License-Identifier: MPL-2.0

package server

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fields reads a request body as Vault's own endpoints do: a number, a bool or a duration may come as text.
type fields map[string]any

func (f fields) has(name string) bool {
	v, ok := f[name]
	return ok && v != nil
}

func (f fields) text(name string) string {
	switch v := f[name].(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}

func (f fields) flag(name string, fallback bool) (bool, error) {
	switch v := f[name].(type) {
	case nil:
		return fallback, nil
	case bool:
		return v, nil
	default:
		b, err := strconv.ParseBool(fmt.Sprint(v))
		if err != nil {
			return false, badRequest("field %q: expected true or false", name)
		}
		return b, nil
	}
}

func (f fields) count(name string) (int, error) {
	if !f.has(name) {
		return 0, nil
	}
	n, err := strconv.Atoi(fmt.Sprint(f[name]))
	if err != nil {
		return 0, badRequest("field %q: expected a number", name)
	}
	return n, nil
}

func (f fields) duration(name string) (time.Duration, error) {
	if !f.has(name) {
		return 0, nil
	}
	d, err := parseDuration(f[name])
	if err != nil {
		return 0, badRequest("field %q: %v", name, err)
	}
	return d, nil
}

// parseDuration takes seconds as a number or text, and Go's form with days in addition.
func parseDuration(v any) (time.Duration, error) {
	var text string
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case float64:
		text = strconv.FormatFloat(v, 'f', -1, 64)
	case string:
		text = v
	default:
		return 0, fmt.Errorf("expected a duration")
	}
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if n, numErr := strconv.ParseInt(text, 10, 64); numErr == nil {
		d, err = time.Duration(n)*time.Second, nil
	} else if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, numErr := strconv.ParseInt(days, 10, 32); numErr == nil {
			d, err = time.Duration(n)*24*time.Hour, nil
		}
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("expected a duration such as 90, 90s or 24h")
	}
	return d, nil
}

func (f fields) list(name string) []string {
	var out []string
	switch v := f[name].(type) {
	case nil:
	case string:
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	case []any:
		for _, e := range v {
			out = append(out, fmt.Sprint(e))
		}
	case []string:
		out = slices.Clone(v)
	}
	return out
}

func (f fields) pairs(name string) (map[string]string, error) {
	switch v := f[name].(type) {
	case nil:
		return nil, nil
	case map[string]any:
		out := make(map[string]string, len(v))
		for k, e := range v {
			out[k] = fmt.Sprint(e)
		}
		return out, nil
	default:
		out := map[string]string{}
		for _, kv := range f.list(name) {
			k, e, ok := strings.Cut(kv, "=")
			if !ok {
				return nil, badRequest("field %q: expected key=value", name)
			}
			out[k] = e
		}
		return out, nil
	}
}
