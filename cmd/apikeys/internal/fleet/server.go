// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/vaultlogin"
)

const (
	// pageSize is what one answer of a list holds at most.
	pageSize = 1000
	// tries is how often a call is made that the server cannot answer at the moment: a
	// failover takes seconds, and a large fleet many calls.
	tries      = 7
	firstPause = 500 * time.Millisecond
	// longestPause bounds what the server may ask for by Retry-After, too.
	longestPause = 15 * time.Second
)

// mount is the engine at a server.
type mount struct {
	session *vaultlogin.Session
	path    string
	log     *slog.Logger
	// answered says that the address is right: from then on silence is an outage.
	answered atomic.Bool
}

// errAbsent is a 404 without a reason: nothing is there, which for a list is an empty one.
var errAbsent = errors.New("nothing is there")

// read asks for a path, and decodes the answer's data into out.
func (m *mount) read(ctx context.Context, path string, query url.Values, out any) (warnings []string, err error) {
	pause := firstPause
	for try := 1; ; try++ {
		var header http.Header
		body, err := m.session.Do(ctx, func(c *api.Client) (*api.Response, error) {
			req := c.NewRequest(http.MethodGet, "/v1/"+m.path+"/"+path)
			req.Params = query
			resp, err := c.RawRequestWithContext(ctx, req) //nolint:staticcheck // Logical() has no pages
			if resp != nil {
				header = resp.Header
			}
			return resp, err
		})
		if err == nil {
			m.answered.Store(true)
			return m.decode(path, body, out)
		}
		again := m.passes(err)
		err = m.explain(path, query, err)
		if !again || try == tries || ctx.Err() != nil {
			return nil, err
		}
		wait := max(pause, retryAfter(header))
		m.log.Warn("trying again", "after", wait, "error", err)
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
		}
		pause = min(2*pause, longestPause)
	}
}

func (m *mount) decode(path string, body []byte, out any) ([]string, error) {
	var wrapped struct {
		Data     json.RawMessage `json:"data"`
		Warnings []string        `json:"warnings"`
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&wrapped); err != nil {
		return nil, fmt.Errorf("%s/%s: the answer is not JSON of a server: %w", m.path, path, err)
	}
	if len(wrapped.Data) == 0 {
		return nil, fmt.Errorf("%s/%s: the answer has no data: is it the address of a Vault or OpenBao server?", m.path, path)
	}
	if err := json.Unmarshal(wrapped.Data, out); err != nil {
		return nil, fmt.Errorf("%s/%s: %w", m.path, path, err)
	}
	return wrapped.Warnings, nil
}

// passes reports whether an error is one that passes: a limit, a failover, a seal, a
// connection that broke.
func (m *mount) passes(err error) bool {
	var re *api.ResponseError
	if errors.As(err, &re) {
		return slices.Contains([]int{
			http.StatusPreconditionFailed, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
		}, re.StatusCode)
	}
	return m.answered.Load()
}

// retryAfter is how long a server asks to be left alone.
func retryAfter(header http.Header) time.Duration {
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, longestPause)
}

// explain says on one line what was asked for, and what to do.
func (m *mount) explain(path string, query url.Values, err error) error {
	verb := "read"
	if query.Has("list") {
		verb = "list"
	}
	what := fmt.Sprintf("%s %s/%s", verb, m.path, path)
	var re *api.ResponseError
	if !errors.As(err, &re) {
		return fmt.Errorf("%s: %w", what, err)
	}
	text := clean(strings.Join(re.Errors, "; "), 1000)
	switch {
	case re.StatusCode == http.StatusNotFound && text == "":
		return fmt.Errorf("%s: %w", what, errAbsent)
	case re.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s: %s: is the engine mounted at %s/? -mount says where", what, text, m.path)
	case re.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%s: %s: the token's policy lacks it; bootstrap/policies/fleet.hcl has all that is needed", what, text)
	case text == "":
		return fmt.Errorf("%s: the server answers %d", what, re.StatusCode)
	default:
		return fmt.Errorf("%s: the server answers %d: %s", what, re.StatusCode, text)
	}
}

// list reads all pages of a list with key info. warn gets what the server says of a page,
// before its entries.
func list[T any](ctx context.Context, m *mount, path string, warn func([]string), each func(name string, info *T) error) error {
	after := ""
	for {
		var page struct {
			Keys      []string     `json:"keys"`
			Info      map[string]T `json:"key_info"`
			NextAfter string       `json:"next_after"`
		}
		query := url.Values{"list": {"true"}, "after": {after}, "limit": {strconv.Itoa(pageSize)}}
		told, err := m.read(ctx, path, query, &page)
		if errors.Is(err, errAbsent) {
			return nil
		}
		if err != nil {
			return err
		}
		// That there is more is seen by next_after.
		warn(slices.DeleteFunc(told, func(text string) bool { return strings.Contains(text, "next_after") }))
		for _, name := range page.Keys {
			info := page.Info[name]
			if err := each(name, &info); err != nil {
				return err
			}
		}
		if page.NextAfter == "" {
			return nil
		}
		if page.NextAfter <= after {
			return fmt.Errorf("list %s/%s: the server's pages do not move on from %q", m.path, path, after)
		}
		after = page.NextAfter
	}
}

// stamp is a time as the engine writes it; empty is none.
type stamp struct{ time.Time }

// UnmarshalJSON reads RFC 3339, or an empty text.
func (s *stamp) UnmarshalJSON(raw []byte) error {
	if string(raw) == `""` || string(raw) == "null" {
		s.Time = time.Time{}
		return nil
	}
	return json.Unmarshal(raw, &s.Time)
}

// MarshalJSON writes what UnmarshalJSON reads.
func (s stamp) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

func (s stamp) String() string {
	if s.IsZero() {
		return ""
	}
	return s.UTC().Format(time.RFC3339)
}

// role is what inventory/ tells of one role.
type role struct {
	Name             string   `json:"role"`
	ID               string   `json:"role_id"`
	Type             string   `json:"type"`
	Owner            string   `json:"owner"`
	Disabled         bool     `json:"disabled"`
	CurrentVersion   int      `json:"current_version"`
	KeyID            string   `json:"key_id"`
	CurrentSince     stamp    `json:"current_since"`
	Expires          stamp    `json:"expires"`
	Strength         string   `json:"strength"`
	NextRotation     stamp    `json:"next_rotation"`
	Rotation         string   `json:"rotation"`
	PreviousVersion  int      `json:"previous_version"`
	PreviousUntil    stamp    `json:"previous_until"`
	PreviousLastUsed stamp    `json:"previous_last_used"`
	PreviousInUse    bool     `json:"previous_in_use"`
	Problems         []string `json:"problems"`
}

func (r *role) static() bool { return r.Type == "static" }

// kinds is what problems/ tells of one role.
type kinds struct {
	Kinds string `json:"problems"` // joined by commas
	Since stamp  `json:"since"`
}

// coming is an event of the calendar.
type coming struct {
	Time    stamp  `json:"time"`
	What    string `json:"what"`
	Role    string `json:"role"`
	RoleID  string `json:"role_id"`
	Owner   string `json:"owner"`
	Version int    `json:"version"`
	Overdue bool   `json:"overdue"`
}

// calendar is what the engine knows to come.
type calendar struct {
	Now      stamp    `json:"now"`
	Until    stamp    `json:"until"`
	Events   []coming `json:"events"`
	Complete stamp    `json:"complete_until"`
	Warnings []string `json:"-"`
}

// longestCalendar is how far ahead the engine looks.
const longestCalendar = 90 * 24 * time.Hour

func (m *mount) calendar(ctx context.Context, within time.Duration) (*calendar, error) {
	c := &calendar{}
	query := url.Values{"within": {strconv.FormatInt(int64(min(within, longestCalendar)/time.Second), 10)}}
	var err error
	if c.Warnings, err = m.read(ctx, "calendar", query, c); err != nil {
		return nil, err
	}
	if !c.Complete.Before(c.Until.Time) {
		c.Complete.Time = c.Until.Add(1) // what comes at that instant is listed, too
	}
	// That a list is cut is no news: what comes later the inventory tells.
	c.Warnings = slices.DeleteFunc(c.Warnings, func(text string) bool { return strings.Contains(text, "is complete only until") })
	return c, nil
}

// status is what status/<role> tells of a role.
type status struct {
	LastError   string       `json:"last_error"`
	Attempts    int          `json:"attempts"`
	NextAttempt stamp        `json:"next_attempt"`
	Versions    []keyVersion `json:"versions"`
	StillUsed   []struct {
		Version      int      `json:"version"`
		State        string   `json:"state"`
		LastAccepted stamp    `json:"last_accepted"`
		Clients      []string `json:"clients"`
	} `json:"still_used"`
}

type keyVersion struct {
	Version   int    `json:"version"`
	State     string `json:"state"`
	Activated stamp  `json:"activated"`
	Ends      stamp  `json:"ends"`
	Ended     stamp  `json:"ended"`
	Reported  stamp  `json:"reported"`
	Usage     struct {
		FirstUse stamp `json:"first_use"`
		Reads    int64 `json:"reads"`
		Reported struct {
			FirstUse stamp `json:"first_use"`
		} `json:"reported"`
	} `json:"usage"`
}

// known reports whether anybody is known to have come for the version.
func (v *keyVersion) known() bool {
	return v.Usage.Reads > 0 || !v.Usage.FirstUse.IsZero() || !v.Usage.Reported.FirstUse.IsZero()
}

func (s *status) version(n int) *keyVersion {
	for i := range s.Versions {
		if s.Versions[i].Version == n {
			return &s.Versions[i]
		}
	}
	return nil
}

// status is nil where the role was deleted since it was listed.
func (m *mount) status(ctx context.Context, role string) (*status, error) {
	s := &status{}
	_, err := m.read(ctx, "status/"+role, nil, s)
	if errors.Is(err, errAbsent) {
		return nil, nil //nolint:nilnil // no role, no status
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}
