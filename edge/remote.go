// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/vaultlogin"
)

// maxBatchBytes is how long a batch may be; the engine takes 1 MiB.
const maxBatchBytes = 900 << 10

// remote is the engine as an edge asks it.
type remote interface {
	changes(ctx context.Context, since string, wait time.Duration) (changes, error)
	verify(ctx context.Context, questions []question) (*answers, error)
	report(ctx context.Context, instance string, sequence uint64, batch string) error
	// reconnect has the next call use a new connection.
	reconnect()
}

// changes is the answer of the feed.
type changes struct {
	Notices      []feed.Notice `json:"notices"`
	Cursor       string        `json:"cursor"`
	Reset        bool          `json:"reset"`
	Now          time.Time     `json:"now"`
	Oldest       time.Time     `json:"oldest"`
	Mount        string        `json:"mount"`
	MaxStaleness int64         `json:"max_staleness"`
	FeedWait     int64         `json:"feed_wait"`
}

// answers are those to a batch of questions.
type answers struct {
	Cursor  string               `json:"cursor"`
	Results []answer             `json:"results"`
	Roles   map[string]roleFacts `json:"roles"`
}

type answer struct {
	Code     string           `json:"code"`
	Hint     string           `json:"hint"`
	RoleID   string           `json:"role_id"`
	KeyID    string           `json:"key_id"`
	Version  int32            `json:"version"`
	Lease    bool             `json:"lease"`
	Scopes   *[]string        `json:"scopes"` // of a key that has fewer than its role
	Timeline []timeline.Entry `json:"timeline"`
}

// roleFacts are what all keys of a role share.
type roleFacts struct {
	Role         string            `json:"role"`
	Scopes       []string          `json:"scopes"`
	AllowedCIDRs []string          `json:"allowed_cidrs"`
	Metadata     map[string]string `json:"metadata"`
	RateLimit    float64           `json:"rate_limit"`
	Disabled     bool              `json:"disabled"`

	made *facts
}

var errNoFacts = errors.New("the answer does not tell the role's facts")

// factsOf is what is to be enforced for an answer.
func (a *answers) factsOf(r *answer) (*facts, error) {
	rf, ok := a.Roles[r.RoleID]
	if !ok {
		return nil, errNoFacts
	}
	if rf.made == nil {
		f := &facts{scopes: rf.Scopes, metadata: rf.Metadata, rateLimit: rf.RateLimit, disabled: rf.Disabled, anyone: len(rf.AllowedCIDRs) == 0}
		for _, text := range rf.AllowedCIDRs {
			network, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, fmt.Errorf("allowed_cidrs: %w", err)
			}
			f.networks = append(f.networks, network)
		}
		rf.made = intern(f)
		a.Roles[r.RoleID] = rf
	}
	if r.Scopes == nil {
		return rf.made, nil
	}
	own := *rf.made
	own.scopes = *r.Scopes
	return intern(&own), nil
}

// interned are the facts that were seen last, so that roles that say the same share
// them.
var interned = struct {
	sync.Mutex
	facts map[string]*facts
}{facts: map[string]*facts{}}

const maxInterned = 4096

func intern(f *facts) *facts {
	text, err := json.Marshal([]any{f.scopes, f.networks, f.metadata, f.rateLimit, f.disabled})
	if err != nil {
		return f
	}
	interned.Lock()
	defer interned.Unlock()
	if same := interned.facts[string(text)]; same != nil {
		return same
	}
	if len(interned.facts) >= maxInterned {
		clear(interned.facts)
	}
	interned.facts[string(text)] = f
	return f
}

// admits reports whether a key may be presented from that address.
func (f *facts) admits(addr netip.Addr) bool {
	if f.anyone {
		return true
	}
	addr = addr.Unmap().WithZone("")
	for _, network := range f.networks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// vault is the engine behind a server's API.
type vault struct {
	session     *vaultlogin.Session
	mount, path string
}

func newRemote(ctx context.Context, done *sync.WaitGroup, opt Options) (remote, error) {
	session, err := vaultlogin.Start(ctx, done, vaultlogin.Options{Client: opt.Client, Auth: opt.Auth, TokenFile: opt.TokenFile, Log: opt.Log})
	if err != nil {
		return nil, err
	}
	mount := strings.Trim(opt.Mount, "/")
	path := mount + "/verify"
	if opt.Role != "" {
		path += "/" + opt.Role
	}
	return &vault{session: session, mount: mount, path: path}, nil
}

func (r *vault) reconnect() { r.session.Reconnect() }

func (r *vault) changes(ctx context.Context, since string, wait time.Duration) (changes, error) {
	var out changes
	err := r.do(ctx, r.mount+"/changes", map[string]any{"since": since, "wait": wait.String()}, &out)
	return out, err
}

func (r *vault) verify(ctx context.Context, questions []question) (*answers, error) {
	items := make([]map[string]any, len(questions))
	for i := range questions {
		q := &questions[i]
		if q.keyID != "" {
			items[i] = map[string]any{"key_id": q.keyID, "role_id": q.roleID, "timeline": timeline.Schema}
		} else {
			items[i] = map[string]any{"key": q.key, "timeline": timeline.Schema}
		}
	}
	var batch strings.Builder
	enc := json.NewEncoder(&batch)
	enc.SetEscapeHTML(false) // it is counted by question.size
	if err := enc.Encode(items); err != nil {
		return nil, err
	}
	out := &answers{}
	err := r.do(ctx, r.path, map[string]any{"batch": batch.String()}, out)
	return out, err
}

func (r *vault) report(ctx context.Context, instance string, sequence uint64, batch string) error {
	path := r.mount + "/usage"
	if _, role, bound := strings.Cut(r.path, "/verify/"); bound {
		path += "/" + role
	}
	return r.do(ctx, path, map[string]any{"instance": instance, "sequence": sequence, "batch": batch}, nil)
}

// do writes to a path of the mount, and reads the answer's data into out.
func (r *vault) do(ctx context.Context, path string, body map[string]any, out any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	answer, err := r.session.Do(ctx, func(c *api.Client) (*api.Response, error) {
		req := c.NewRequest(http.MethodPut, "/v1/"+path)
		req.BodyBytes = raw
		return c.RawRequestWithContext(ctx, req) //nolint:staticcheck // Logical() decodes into maps, which costs ten times as much
	})
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	var wrapped struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(bytes.NewReader(answer)).Decode(&wrapped); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := json.Unmarshal(wrapped.Data, out); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
