// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestSecretResponse(t *testing.T) {
	data := map[string]interface{}{"k": "v"}
	internal := map[string]interface{}{"i": 1}
	secret := &Secret{Type: "thing", DefaultDuration: time.Hour, Renew: answer("renew")}
	resp := secret.Response(data, internal)

	want := &logical.Response{
		Secret: &logical.Secret{
			LeaseOptions: logical.LeaseOptions{TTL: time.Hour, Renewable: true},
			InternalData: map[string]interface{}{"i": 1, "secret_type": "thing"},
		},
		Data: data,
	}
	if !reflect.DeepEqual(resp, want) {
		t.Errorf("got %#v, want %#v", resp, want)
	}
	if len(internal) != 1 {
		t.Errorf("the caller's map became %v", internal)
	}

	resp = (&Secret{Type: "fixed"}).Response(nil, nil)
	if resp.Secret.Renewable || resp.Secret.TTL != 0 || resp.Data != nil || resp.Secret.InternalData["secret_type"] != "fixed" {
		t.Errorf("got %#v", resp.Secret)
	}
}

func TestRenewAndRevoke(t *testing.T) {
	b := &Backend{Secrets: []*Secret{
		{Type: "full", Renew: answer("renew"), Revoke: answer("revoke"), Fields: map[string]*FieldSchema{"n": {Type: TypeInt}}},
		{Type: "bare"},
	}}
	typed := func(kind interface{}) *logical.Secret {
		return &logical.Secret{InternalData: map[string]interface{}{"secret_type": kind}}
	}
	// What was leased is not validated again.
	leased := map[string]interface{}{"n": "many", "unknown": 1}

	for _, c := range []struct {
		req *logical.Request
		by  string
		err string
	}{
		{logical.RenewRequest("p", typed("full"), leased), "renew", ""},
		{logical.RevokeRequest("p", typed("full"), leased), "revoke", ""},
		{logical.RenewRequest("p", typed("bare"), nil), "", "unsupported operation"},
		{logical.RevokeRequest("p", typed("bare"), nil), "", "unsupported operation"},
		{logical.RenewRequest("p", typed("other"), nil), "", "secret is unsupported by this backend"},
		{logical.RevokeRequest("p", typed(1), nil), "", "secret is unsupported by this backend"},
		{logical.RenewRequest("p", &logical.Secret{}, nil), "", "secret is unsupported by this backend"},
		{logical.RenewRequest("p", nil, nil), "", "request has no secret"},
		{logical.RevokeRequest("p", nil, nil), "", "request has no secret"},
	} {
		resp, err := b.HandleRequest(context.Background(), c.req)
		if c.err != "" {
			if err == nil || err.Error() != c.err || resp != nil {
				t.Errorf("%s: got %v, %v, want error %q", c.req.Operation, resp, err, c.err)
			}
			continue
		}
		if err != nil || resp.Data["by"] != c.by || !reflect.DeepEqual(resp.Data["raw"], c.req.Data) || len(resp.Warnings) != 0 {
			t.Errorf("%s: got %v, %v", c.req.Operation, resp, err)
		}
	}
}

func TestAuthRenew(t *testing.T) {
	b := &Backend{}
	req := logical.RenewAuthRequest("login", &logical.Auth{}, nil)
	resp, err := b.HandleRequest(context.Background(), req)
	if err != nil || !resp.IsError() || resp.Error().Error() != "this auth type doesn't support renew" {
		t.Errorf("got %v, %v", resp, err)
	}

	b.AuthRenew = LeaseExtend(time.Hour, 2*time.Hour, nil)
	resp, err = b.HandleRequest(context.Background(), req)
	if err != nil || resp.Auth.TTL != time.Hour || resp.Auth.MaxTTL != 2*time.Hour {
		t.Errorf("got %v, %v", resp, err)
	}
	if _, err := b.HandleRequest(context.Background(), logical.RenewAuthRequest("login", nil, nil)); err == nil {
		t.Error("renewed nothing")
	}
}

func TestLeaseExtend(t *testing.T) {
	extend := LeaseExtend(time.Hour, 2*time.Hour, nil)
	secret := &logical.Secret{InternalData: map[string]interface{}{"k": "v"}}
	resp, err := extend(context.Background(), logical.RenewRequest("p", secret, nil), nil)
	if err != nil || resp.Secret != secret || secret.TTL != time.Hour || secret.MaxTTL != 2*time.Hour {
		t.Errorf("got %v, %v", resp, err)
	}
	if _, err := extend(context.Background(), &logical.Request{}, nil); err == nil {
		t.Error("extended nothing")
	}
}

func TestCalculateTTL(t *testing.T) {
	view := logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: 30 * time.Hour}
	// Far enough from every limit that the time the test takes makes no difference when rounded to minutes.
	for name, c := range map[string]struct {
		increment, backendTTL, period, backendMax, explicitMax, age time.Duration

		want     time.Duration
		warnings int
		err      string
	}{
		"mount default":                        {want: time.Hour},
		"backend TTL":                          {backendTTL: 2 * time.Hour, want: 2 * time.Hour},
		"increment wins":                       {increment: 3 * time.Hour, backendTTL: 2 * time.Hour, want: 3 * time.Hour},
		"negative increment":                   {increment: -1, backendTTL: 2 * time.Hour, want: 2 * time.Hour},
		"mount max":                            {increment: 40 * time.Hour, want: 30 * time.Hour, warnings: 1},
		"exactly max":                          {increment: 30 * time.Hour, want: 30 * time.Hour},
		"backend max":                          {increment: 40 * time.Hour, backendMax: 20 * time.Hour, want: 20 * time.Hour, warnings: 1},
		"backend max over the mount's":         {increment: 40 * time.Hour, backendMax: 35 * time.Hour, want: 30 * time.Hour, warnings: 1},
		"explicit max":                         {increment: 40 * time.Hour, backendMax: 20 * time.Hour, explicitMax: 10 * time.Hour, want: 10 * time.Hour, warnings: 1},
		"what is left":                         {increment: 40 * time.Hour, age: 20 * time.Hour, want: 10 * time.Hour, warnings: 1},
		"enough left":                          {increment: 5 * time.Hour, age: 20 * time.Hour, want: 5 * time.Hour},
		"nothing left":                         {increment: time.Hour, age: 31 * time.Hour, err: "past the max TTL, cannot renew"},
		"exactly nothing left":                 {increment: time.Hour, age: 30 * time.Hour, err: "past the max TTL, cannot renew"},
		"period":                               {increment: 3 * time.Hour, period: 2 * time.Hour, want: 2 * time.Hour},
		"period goes on":                       {period: 2 * time.Hour, age: 100 * time.Hour, want: 2 * time.Hour},
		"period over max":                      {period: 40 * time.Hour, want: 30 * time.Hour, warnings: 1},
		"period of exactly max":                {period: 30 * time.Hour, want: 30 * time.Hour},
		"period with explicit max":             {period: 2 * time.Hour, explicitMax: 10 * time.Hour, age: 9 * time.Hour, want: time.Hour, warnings: 1},
		"period past explicit max":             {period: 2 * time.Hour, explicitMax: 10 * time.Hour, age: 11 * time.Hour, err: "past the max TTL, cannot renew"},
		"period over mount with explicit over": {period: 40 * time.Hour, explicitMax: 50 * time.Hour, want: 30 * time.Hour, warnings: 1},
	} {
		var start time.Time
		if c.age != 0 {
			start = time.Now().Add(-c.age)
		}
		got, warnings, err := CalculateTTL(view, c.increment, c.backendTTL, c.period, c.backendMax, c.explicitMax, start)
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%s: error is %v, want %s", name, err, c.err)
			}
			continue
		}
		if err != nil || got.Round(time.Minute) != c.want || len(warnings) != c.warnings {
			t.Errorf("%s: got %s, %q, %v, want %s with %d warnings", name, got, warnings, err, c.want, c.warnings)
		}
	}

	_, _, err := CalculateTTL(logical.StaticSystemView{}, time.Hour, 0, 0, time.Hour, 0, time.Time{})
	if err == nil || err.Error() != "max TTL must be greater than zero" {
		t.Errorf("a mount without maximum: %v", err)
	}
	_, warnings, err := CalculateTTL(view, 40*time.Hour, 0, 0, 0, 0, time.Time{})
	if want := `TTL of "40h" exceeded the effective max_ttl of "30h"; TTL value is capped accordingly`; err != nil || len(warnings) != 1 || warnings[0] != want {
		t.Errorf("got %q, %v", warnings, err)
	}
	_, warnings, err = CalculateTTL(view, 0, 0, 40*time.Hour, 0, 0, time.Time{})
	if err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0], `period of "40h" exceeded`) {
		t.Errorf("got %q, %v", warnings, err)
	}
}

func TestHumanDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                          "0s",
		time.Second:                "1s",
		time.Minute:                "1m",
		10 * time.Minute:           "10m",
		time.Hour:                  "1h",
		time.Hour + time.Second:    "1h1s",
		time.Hour + time.Minute:    "1h1m",
		90*time.Minute + 5*1e9:     "1h30m5s",
		20*time.Hour + 10*1e9:      "20h10s",
		10*time.Hour + 10*60*1e9:   "10h10m",
		100 * time.Millisecond:     "100ms",
		time.Hour + 30*60*1e9:      "1h30m",
		-(time.Hour + time.Minute): "-1h1m",
	} {
		if got := humanDuration(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
}
