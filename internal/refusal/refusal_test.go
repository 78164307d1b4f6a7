// SPDX-License-Identifier: MPL-2.0

package refusal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

func TestTextNamesFieldValueRuleAndWhatToDo(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{New("ttl", 5, "must be at least 60", "give a longer one"), "ttl: 5: must be at least 60: give a longer one"},
		{New("owner", "a b", "is bad", "mend it"), `owner: "a b": is bad: mend it`},
		{New("key", nil, "is missing", "give it"), "key: is missing: give it"},
		{New("roles", "", "is empty", ""), `roles: "": is empty`},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestInFindsWhatIsWrapped(t *testing.T) {
	r := New("ttl", 1, "too short", "")
	if got := In(fmt.Errorf("role a: %w", r)); got == nil || got.Field != "ttl" {
		t.Errorf("a wrapped refusal: %v", got)
	}
	if got := In(errors.New("ttl: 1: too short")); got != nil {
		t.Errorf("another error: %v", got)
	}
	if got := In(nil); got != nil {
		t.Errorf("no error: %v", got)
	}
}

func TestNoKeyAndNoLongTextIsShown(t *testing.T) {
	key, err := keyformat.Mint("ak", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := New("owner", "x"+key.Reveal()+"y", "is bad", "").Error()
	if strings.Contains(text, key.Reveal()) || !strings.Contains(text, "[key "+key.ID()+"]") {
		t.Errorf("the text is %q", text)
	}
	long := Shown(strings.Repeat("ü", 200))
	if len(long) > maxShown+len("…") || !utf8.ValidString(long) || !strings.HasSuffix(long, "…") {
		t.Errorf("a long value is shown as %q", long)
	}
}

func TestNothingUnprintableIsShown(t *testing.T) {
	type name string
	for _, c := range []struct {
		value any
		want  string
	}{
		{"", `""`},
		{"a b ü", `"a b ü"`},
		{"a\x00\n\u202e\u2028\xff", `"a\x00\n\u202e\u2028\xff"`},
		{5, "5"},
		{2.5, "2.5"},
		{name("plain"), "plain"},
		{name("a\tb"), `"a\tb"`},
		{[]any{"a", 1}, "[a 1]"},
		{[]any{"a\x1b[0m"}, `"[a\x1b[0m]"`},
		{map[string]any{"k\n": "v"}, `"map[k\n:v]"`},
		{errors.New("bad \xff"), `"bad \xff"`},
	} {
		if got := Shown(c.value); got != c.want {
			t.Errorf("%#v is shown as %s, want %s", c.value, got, c.want)
		}
	}
}

// An escape before a key must not hide it, nor a cut leave a part of it.
func TestKeysAreClearedBeforeAnythingElse(t *testing.T) {
	key, err := keyformat.Mint("ak", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []any{"\n" + key.Reveal(), []any{"\x00", key.Reveal()}, strings.Repeat("x", 40) + key.Reveal(), map[string]any{key.Reveal(): 1}} {
		got := Shown(value)
		if strings.Contains(got, key.Reveal()[:30]) || !strings.Contains(got, "[key "+key.ID()+"]") {
			t.Errorf("shown as %s", got)
		}
	}
}

func TestShownIsCutAfter80Bytes(t *testing.T) {
	if got, want := Shown(strings.Repeat("x", 78)), `"`+strings.Repeat("x", 78)+`"`; got != want {
		t.Errorf("%s", got)
	}
	if got, want := Shown(strings.Repeat("x", 79)), `"`+strings.Repeat("x", 79)+"…"; got != want {
		t.Errorf("%s", got)
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                                "0 seconds",
		time.Second:                      "1 second",
		2 * time.Second:                  "2 seconds",
		59 * time.Second:                 "59 seconds",
		-time.Hour:                       "-3600 seconds",
		time.Minute:                      "1m (60 seconds)",
		61 * time.Second:                 "1m1s (61 seconds)",
		time.Hour:                        "1h (3600 seconds)",
		time.Hour + time.Second:          "1h1s (3601 seconds)",
		100*time.Minute + 40*time.Second: "1h40m40s (6040 seconds)",
		168 * time.Hour:                  "168h (604800 seconds)",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
		// People can give it back as it stands.
		if human, _, ok := strings.Cut(Duration(d), " ("); ok {
			if back, err := time.ParseDuration(human); err != nil || back != d {
				t.Errorf("%s: %v %v", human, back, err)
			}
		}
	}
}
