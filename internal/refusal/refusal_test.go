// SPDX-License-Identifier: MPL-2.0

package refusal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
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
