// SPDX-License-Identifier: MPL-2.0

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/vaultlogin"
)

// remote is the engine, and the server around it, as a Source asks them.
type remote interface {
	// read is the current key, or one that is issued now.
	read(ctx context.Context) (*grant, error)
	// renew is how long a lease lives on.
	renew(ctx context.Context, leaseID string) (time.Duration, error)
	// revoke ends a lease.
	revoke(ctx context.Context, leaseID string) error
	// tokenLife is how long a token lives on; 0: it does not end.
	tokenLife(ctx context.Context, token string) (time.Duration, error)
	// token is the one that the next call is made with.
	token() string
	// report tells which keys were used.
	report(ctx context.Context, instance string, sequence uint64, batch string) error
	// logOut ends the token, and with it what it was issued.
	logOut(ctx context.Context) error
}

// grant is an answer of creds/<role>.
type grant struct {
	key       Key
	ttl       time.Duration // of a static role: when to read again
	since     time.Time     // of a static role: since when the key has been current
	lease     string
	life      time.Duration // of the lease
	renewable bool
	token     string        // the one that it was issued to
	ahead     time.Duration // of the server's clock before this machine's
}

// vault is the engine behind a server's API.
type vault struct {
	session          *vaultlogin.Session
	client           *api.Client // its configuration
	creds, usagePath string
	query            url.Values
	wall             func() int64
}

func newVault(ctx context.Context, done *sync.WaitGroup, opt *Options) (remote, error) {
	session, err := vaultlogin.Start(ctx, done, vaultlogin.Options{Client: opt.Client, Auth: opt.Auth, TokenFile: opt.TokenFile, Log: opt.Log})
	if err != nil {
		return nil, err
	}
	mount := strings.Trim(opt.Mount, "/")
	// It comes for this key again and again: a role that hands its keys out once is
	// refused before one is used up.
	query := url.Values{"repeatable": {"true"}}
	if len(opt.Scopes) > 0 {
		query.Set("scopes", strings.Join(opt.Scopes, ","))
	}
	if opt.TTL > 0 {
		query.Set("ttl", fmt.Sprint(int64(opt.TTL/time.Second)))
	}
	if opt.KeyLabel != "" {
		query.Set("label", opt.KeyLabel)
	}
	return &vault{
		session: session, client: opt.Client, creds: "/v1/" + mount + "/creds/" + opt.Role, usagePath: "/v1/" + mount + "/usage/" + opt.Role,
		query: query, wall: func() int64 { wall, _ := opt.Clock(); return wall },
	}, nil
}

func (v *vault) token() string { return v.session.Token() }

// call asks, and reads the answer into out.
func (v *vault) call(ctx context.Context, method, path string, query url.Values, body map[string]any, out any) (with *api.Client, date time.Time, err error) {
	var raw []byte
	if body != nil {
		if raw, err = json.Marshal(body); err != nil {
			return nil, date, err
		}
	}
	answer, with, err := v.session.Call(ctx, func(c *api.Client) (*api.Response, error) {
		req := c.NewRequest(method, path)
		if query != nil {
			req.Params = query
		}
		req.BodyBytes = raw
		resp, err := c.RawRequestWithContext(ctx, req) //nolint:staticcheck // Logical() leaves the Date header out
		if resp != nil {
			date, _ = http.ParseTime(resp.Header.Get("Date"))
		}
		return resp, err
	})
	if err != nil || out == nil {
		return with, date, err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return with, date, fmt.Errorf("the answer of %s: %w", strings.TrimPrefix(path, "/v1/"), err)
	}
	return with, date, nil
}

// errNoKey is an answer that holds no key, or one that has ended: something else answers
// at that path.
var errNoKey = errors.New("the answer holds no api_key that lives: is the mount one of this engine?")

func (v *vault) read(ctx context.Context) (*grant, error) {
	var out struct {
		LeaseID       string `json:"lease_id"`
		LeaseDuration int64  `json:"lease_duration"`
		Renewable     bool   `json:"renewable"`
		Data          struct {
			APIKey  string    `json:"api_key"`
			KeyID   string    `json:"key_id"`
			Version int       `json:"version"`
			Scopes  []string  `json:"scopes"`
			Role    string    `json:"role"`
			TTL     int64     `json:"ttl"`
			Since   time.Time `json:"last_vault_rotation"`
		} `json:"data"`
	}
	with, date, err := v.call(ctx, http.MethodGet, v.creds, v.query, nil, &out)
	if err != nil {
		return nil, err
	}
	d := &out.Data
	if d.APIKey == "" || d.KeyID == "" || out.LeaseID != "" && out.LeaseDuration <= 0 {
		return nil, errNoKey
	}
	g := &grant{
		key: Key{Value: d.APIKey, ID: d.KeyID, Version: d.Version, Scopes: d.Scopes, Role: d.Role},
		ttl: time.Duration(d.TTL) * time.Second, since: d.Since,
		lease: out.LeaseID, life: time.Duration(out.LeaseDuration) * time.Second, renewable: out.Renewable,
		token: with.Token(),
	}
	if !date.IsZero() {
		g.ahead = date.Sub(time.Unix(0, v.wall()))
	}
	return g, nil
}

func (v *vault) renew(ctx context.Context, leaseID string) (time.Duration, error) {
	var out struct {
		LeaseDuration int64 `json:"lease_duration"`
	}
	_, _, err := v.call(ctx, http.MethodPut, "/v1/sys/leases/renew", nil, map[string]any{"lease_id": leaseID}, &out)
	return time.Duration(out.LeaseDuration) * time.Second, err
}

func (v *vault) revoke(ctx context.Context, leaseID string) error {
	_, _, err := v.call(ctx, http.MethodPut, "/v1/sys/leases/revoke", nil, map[string]any{"lease_id": leaseID}, nil)
	return err
}

func (v *vault) tokenLife(ctx context.Context, token string) (time.Duration, error) {
	client, err := v.client.CloneWithHeaders()
	if err != nil {
		return 0, err
	}
	client.SetToken(token)
	client.SetMaxRetries(0)
	secret, err := client.Auth().Token().LookupSelfWithContext(ctx)
	if err != nil {
		return 0, err
	}
	return secret.TokenTTL()
}

func (v *vault) report(ctx context.Context, instance string, sequence uint64, batch string) error {
	_, _, err := v.call(ctx, http.MethodPut, v.usagePath, nil, map[string]any{"instance": instance, "sequence": sequence, "batch": batch}, nil)
	return err
}

func (v *vault) logOut(ctx context.Context) error {
	_, _, err := v.call(ctx, http.MethodPut, "/v1/auth/token/revoke-self", nil, map[string]any{}, nil)
	return err
}

// final reports whether the server refuses for good: what was asked is wrong, or not
// allowed.
func final(err error) bool {
	var re *api.ResponseError
	if !errors.As(err, &re) {
		return errors.Is(err, errNoKey)
	}
	switch re.StatusCode {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge:
		return true
	}
	return false
}
