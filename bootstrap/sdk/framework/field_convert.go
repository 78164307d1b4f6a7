// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/hashicorp/go-secure-stdlib/parseutil"
	"github.com/hashicorp/vault/sdk/helper/jsonutil"
)

var nameStringRe = regexp.MustCompile(`^\w(([\w-.]+)?\w)?$`)

func (t FieldType) known() bool { return t > TypeInvalid && t <= TypeTime }

// convert returns the value and whether it counts as set: a null is no duration and no time.
func (t FieldType) convert(raw interface{}) (interface{}, bool, error) {
	if raw == nil {
		switch t {
		case TypeDurationSecond, TypeSignedDurationSecond, TypeTime:
			return nil, false, nil
		}
	}
	value, err := t.convertSet(raw)
	if err != nil {
		return nil, false, err
	}
	return value, true, nil
}

func (t FieldType) convertSet(raw interface{}) (interface{}, error) {
	switch t {
	case TypeBool:
		return weak[bool](raw)
	case TypeInt:
		return weak[int](raw)
	case TypeInt64:
		return weak[int64](raw)
	case TypeFloat:
		return weak[float64](raw)
	case TypeString:
		return weak[string](raw)
	case TypeLowerCaseString:
		s, err := weak[string](raw)
		return strings.ToLower(s), err
	case TypeNameString:
		return convertName(raw)
	case TypeMap:
		return weak[map[string]interface{}](raw)
	case TypeKVPairs:
		return convertKVPairs(raw)
	case TypeDurationSecond, TypeSignedDurationSecond:
		d, err := parseutil.ParseDurationSecond(raw)
		if err != nil {
			return nil, err
		}
		seconds := int(d.Seconds())
		if t == TypeDurationSecond && seconds < 0 {
			return nil, fmt.Errorf("cannot provide negative value '%d'", seconds)
		}
		return seconds, nil
	case TypeTime:
		when, err := parseutil.ParseAbsoluteTime(raw)
		return when.UTC(), err
	case TypeSlice:
		list, err := weak[[]interface{}](raw)
		return notNil(list), err
	case TypeStringSlice:
		return convertStringSlice(raw)
	case TypeCommaStringSlice:
		return parseutil.ParseCommaStringSlice(raw)
	case TypeCommaIntSlice:
		return convertCommaIntSlice(raw)
	case TypeHeader:
		return convertHeader(raw)
	default:
		panic(fmt.Sprintf("Unknown type: %s", t))
	}
}

// weak converts between numbers, strings and bools, and makes a list of a single value.
func weak[T any](raw interface{}) (T, error) {
	var out T
	err := mapstructure.WeakDecode(raw, &out)
	return out, err
}

func notNil[T any](list []T) []T {
	if len(list) == 0 {
		return []T{}
	}
	return list
}

func convertName(raw interface{}) (interface{}, error) {
	s, err := weak[string](raw)
	if err != nil {
		return nil, err
	}
	if !nameStringRe.MatchString(s) {
		return nil, errors.New("field does not match the formatting rules")
	}
	return s, nil
}

func convertStringSlice(raw interface{}) (interface{}, error) {
	if raw == "" {
		return []string{}, nil
	}
	list, err := weak[[]string](raw)
	if err != nil {
		return nil, err
	}
	trimmed := make([]string, len(list))
	for i, s := range list {
		trimmed[i] = strings.TrimSpace(s)
	}
	return trimmed, nil
}

func convertCommaIntSlice(raw interface{}) (interface{}, error) {
	if number, ok := raw.(json.Number); ok {
		raw = number.String()
	}
	var list []int
	decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result:           &list,
		WeaklyTypedInput: true,
		DecodeHook:       mapstructure.StringToWeakSliceHookFunc(","),
	})
	if err != nil {
		return nil, err
	}
	if err := decoder.Decode(raw); err != nil {
		return nil, err
	}
	return notNil(list), nil
}

func convertKVPairs(raw interface{}) (interface{}, error) {
	if pairs, err := weak[map[string]string](raw); err == nil {
		return pairs, nil
	}
	list, err := weak[[]string](raw)
	if err != nil {
		return nil, err
	}
	pairs := make(map[string]string, len(list))
	for _, pair := range list {
		key, value, found := strings.Cut(pair, "=")
		if !found || key == "" {
			return nil, fmt.Errorf("invalid key pair %q", pair)
		}
		pairs[key] = value
	}
	return pairs, nil
}

// convertHeader takes a map, the JSON of one, the base64 of such JSON, or a list of "key:value".
func convertHeader(raw interface{}) (interface{}, error) {
	if m, err := weak[map[string]interface{}](raw); err == nil {
		return headerFromMap(m)
	}
	if s, ok := raw.(string); ok {
		text, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			text = []byte(s)
		}
		var m map[string]interface{}
		if err := jsonutil.DecodeJSON(text, &m); err != nil {
			return nil, err
		}
		return headerFromMap(m)
	}
	list, err := weak[[]interface{}](raw)
	if err != nil {
		return nil, fmt.Errorf("%s not provided an expected format", raw)
	}
	header := http.Header{}
	for _, item := range list {
		pair, _ := item.(string)
		key, value, found := strings.Cut(pair, ":")
		if !found || key == "" {
			return nil, fmt.Errorf("invalid key pair %q", pair)
		}
		header.Add(key, value)
	}
	return header, nil
}

func headerFromMap(m map[string]interface{}) (interface{}, error) {
	header := http.Header{}
	for key, group := range m {
		switch group := group.(type) {
		case string:
			header.Add(key, group)
		case json.Number:
			header.Add(key, group.String())
		case []string:
			for _, value := range group {
				header.Add(key, value)
			}
		case []interface{}:
			for _, value := range group {
				switch value := value.(type) {
				case string:
					header.Add(key, value)
				case json.Number:
					header.Add(key, value.String())
				default:
					return nil, fmt.Errorf("received non-string value for header key:%s, val:%s", key, group)
				}
			}
		default:
			return nil, fmt.Errorf("unrecognized type for %s", group)
		}
	}
	return header, nil
}
