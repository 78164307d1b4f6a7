// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"
)

func TestIsError(t *testing.T) {
	type m = map[string]interface{}
	failure := errors.New("failed")
	for _, c := range []struct {
		resp *Response
		want bool
		err  error
	}{
		{nil, false, nil},
		{&Response{}, false, nil},
		{&Response{Data: m{}}, false, nil},
		{&Response{Data: m{"error": nil}}, false, nil},
		{&Response{Data: m{"error": "failed"}}, true, failure},
		{&Response{Data: m{"error": failure}}, true, failure},
		{&Response{Data: m{"error": 5}}, true, nil},
		{&Response{Data: m{"error": "failed", "data": m{}}}, true, failure},
		{&Response{Data: m{"error": "failed", "data": nil}}, false, nil},
		{&Response{Data: m{"error": "failed", "other": 1}}, false, nil},
		{&Response{Data: m{"error": "failed", "data": 1, "other": 1}}, false, nil},
		{&Response{Data: m{"data": 1}}, false, nil},
	} {
		if got := c.resp.IsError(); got != c.want {
			t.Errorf("%v: %v", c.resp, got)
		}
		if err := c.resp.Error(); !reflect.DeepEqual(err, c.err) {
			t.Errorf("%v: error is %v, want %v", c.resp, err, c.err)
		}
	}
}

func TestResponseHelpers(t *testing.T) {
	type m = map[string]interface{}
	role, err := ResolveRoleResponse("r")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		resp *Response
		want m
	}{
		{ErrorResponse("100%"), m{"error": "100%"}},
		{ErrorResponse("%d of %s", 1, "x"), m{"error": "1 of x"}},
		{ErrorResponseWithData(m{"k": 1}, "no %d", 1), m{"error": "no 1", "data": m{"k": 1}}},
		{HelpResponse("text", nil, 5), m{"help": "text", "see_also": []string(nil), "openapi": 5}},
		{ListResponse(nil), m{}},
		{ListResponse([]string{"a"}), m{"keys": []string{"a"}}},
		{ListResponseWithInfo([]string{"a", "b"}, m{"b": 1, "c": 2}), m{"keys": []string{"a", "b"}, "key_info": m{"b": 1}}},
		{ListResponseWithInfo([]string{"a"}, m{"c": 2}), m{"keys": []string{"a"}}},
		{ListResponseWithInfo(nil, m{"c": 2}), m{}},
		{role, m{"role": "r"}},
	} {
		if !reflect.DeepEqual(c.resp, &Response{Data: c.want}) {
			t.Errorf("got %v, want %v", c.resp, c.want)
		}
	}
	var resp Response
	resp.AddWarning("a")
	resp.AddWarning("b")
	if !reflect.DeepEqual(resp.Warnings, []string{"a", "b"}) {
		t.Errorf("warnings are %q", resp.Warnings)
	}
}

func TestRespondWithStatusCode(t *testing.T) {
	raw, err := RespondWithStatusCode(nil, &Request{ID: "id"}, 202)
	want := map[string]interface{}{HTTPContentType: "application/json", HTTPStatusCode: 202}
	if err != nil || !reflect.DeepEqual(raw, &Response{Data: want}) {
		t.Errorf("got %v, %v", raw, err)
	}

	raw, err = RespondWithStatusCode(&Response{Data: map[string]interface{}{"k": "v"}, Warnings: []string{"w"}}, &Request{ID: "id"}, 404)
	if err != nil || raw.Data[HTTPStatusCode] != 404 {
		t.Fatalf("got %v, %v", raw, err)
	}
	body, ok := raw.Data[HTTPRawBody].(string)
	if want := `{"request_id":"id","lease_id":"","renewable":false,"lease_duration":0,"data":{"k":"v"},"wrap_info":null,"warnings":["w"],"auth":null,"mount_type":""}`; !ok || body != want {
		t.Errorf("body is %s, want %s", body, want)
	}

	if _, err := RespondWithStatusCode(&Response{Data: map[string]interface{}{"f": func() {}}}, nil, 200); err == nil {
		t.Error("no error")
	}
}

func TestResponseTranslation(t *testing.T) {
	resp := &Response{
		Data:      map[string]interface{}{"k": "v"},
		Warnings:  []string{"w"},
		Headers:   map[string][]string{"H": {"v"}},
		MountType: "kv",
		Secret:    &Secret{LeaseID: "lease", LeaseOptions: LeaseOptions{TTL: 90*time.Second + 500*time.Millisecond, Renewable: true}},
		Auth: &Auth{
			ClientToken: "t", Accessor: "a", Policies: []string{"p"}, TokenPolicies: []string{"tp"}, IdentityPolicies: []string{"ip"},
			Metadata: map[string]string{"m": "v"}, LeaseOptions: LeaseOptions{TTL: time.Minute, Renewable: true},
			EntityID: "e", TokenType: TokenTypeBatch, Orphan: true, NumUses: 3,
		},
	}
	got := LogicalResponseToHTTPResponse(resp)
	want := &HTTPResponse{
		Data: resp.Data, Warnings: resp.Warnings, Headers: resp.Headers, MountType: "kv",
		LeaseID: "lease", Renewable: true, LeaseDuration: 90,
		Auth: &HTTPAuth{
			ClientToken: "t", Accessor: "a", Policies: []string{"p"}, TokenPolicies: []string{"tp"}, IdentityPolicies: []string{"ip"},
			Metadata: map[string]string{"m": "v"}, LeaseDuration: 60, Renewable: true,
			EntityID: "e", TokenType: "batch", Orphan: true, NumUses: 3,
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}

	back := HTTPResponseToLogicalResponse(got)
	resp.Secret.TTL = 90 * time.Second
	resp.Auth.NumUses = 0 // not carried back
	if !reflect.DeepEqual(back, resp) {
		t.Errorf("got %+v, want %+v", back, resp)
	}
	if back := HTTPResponseToLogicalResponse(&HTTPResponse{LeaseDuration: 5}); back.Secret != nil || back.Auth != nil {
		t.Errorf("got %+v", back)
	}
}

func TestLeaseOptions(t *testing.T) {
	lease := LeaseOptions{TTL: time.Hour, MaxTTL: 2 * time.Hour, Renewable: true, Increment: time.Minute, IssueTime: time.Now()}
	if !lease.LeaseEnabled() || lease.LeaseTotal() != time.Hour {
		t.Error("no lease")
	}
	if left := time.Until(lease.ExpirationTime()); left <= 59*time.Minute || left > time.Hour {
		t.Errorf("expires in %s", left)
	}
	encoded, err := json.Marshal(lease)
	if want := `{"lease":3600000000000,"max_ttl":7200000000000,"renewable":true}`; err != nil || string(encoded) != want {
		t.Errorf("got %s, %v", encoded, err)
	}
	for _, ttl := range []time.Duration{0, -1} {
		lease.TTL = ttl
		if lease.LeaseEnabled() || lease.LeaseTotal() != 0 || !lease.ExpirationTime().IsZero() {
			t.Errorf("a lease of %d", ttl)
		}
		if err := (&Secret{LeaseOptions: lease}).Validate(); (err == nil) != (ttl == 0) {
			t.Errorf("a lease of %d: %v", ttl, err)
		}
	}
}

func TestTokenTypes(t *testing.T) {
	for want, name := range []string{"default", "service", "batch", "default-service", "default-batch"} {
		tt := TokenType(want)
		if tt.String() != name {
			t.Errorf("%d is %s", want, tt)
		}
		parsed, err := NewTokenType(name)
		if err != nil || parsed != tt {
			t.Errorf("%s is %d, %v", name, parsed, err)
		}
		for _, text := range []string{string(rune('0' + want)), `"` + name + `"`} {
			var decoded TokenType
			if err := json.Unmarshal([]byte(text), &decoded); err != nil || decoded != tt {
				t.Errorf("%s is %d, %v", text, decoded, err)
			}
		}
	}
	if tt, err := NewTokenType(""); err != nil || tt != TokenTypeDefault {
		t.Errorf("got %v, %v", tt, err)
	}
	var decoded TokenType
	if err := json.Unmarshal([]byte(`"other"`), &decoded); err == nil {
		t.Error("decoded an unknown type")
	}
}
