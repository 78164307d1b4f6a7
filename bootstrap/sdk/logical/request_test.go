// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"crypto/tls"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/go-sockaddr"
)

func TestRequestGet(t *testing.T) {
	req := &Request{}
	if req.Get("k") != nil || req.GetString("k") != "" {
		t.Error("got something from nothing")
	}
	req.Data = map[string]interface{}{"s": "v", "n": 1}
	if req.Get("n") != 1 || req.GetString("n") != "" || req.GetString("s") != "v" || req.Get("k") != nil {
		t.Error("got something else")
	}
}

func TestRequestConstructors(t *testing.T) {
	secret, auth, data := &Secret{}, &Auth{}, map[string]interface{}{"k": 1}
	for _, c := range []struct{ got, want *Request }{
		{RenewRequest("p", secret, data), &Request{Operation: "renew", Path: "p", Secret: secret, Data: data}},
		{RenewAuthRequest("p", auth, data), &Request{Operation: "renew", Path: "p", Auth: auth, Data: data}},
		{RevokeRequest("p", secret, nil), &Request{Operation: "revoke", Path: "p", Secret: secret}},
		{RollbackRequest("p"), &Request{Operation: "rollback", Path: "p", Data: map[string]interface{}{}}},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("got %+v, want %+v", c.got, c.want)
		}
	}
	test := TestRequest(t, UpdateOperation, "p")
	if test.Operation != "update" || test.Path != "p" || test.Data == nil || test.Connection == nil || test.Storage == nil {
		t.Errorf("got %+v", test)
	}
}

func TestOperationNames(t *testing.T) {
	for op, want := range map[Operation]string{
		CreateOperation: "create", ReadOperation: "read", UpdateOperation: "update", PatchOperation: "patch", DeleteOperation: "delete",
		ListOperation: "list", HelpOperation: "help", AliasLookaheadOperation: "alias-lookahead", ResolveRoleOperation: "resolve-role",
		HeaderOperation: "header", RecoverOperation: "recover", RevokeOperation: "revoke", RenewOperation: "renew",
		RollbackOperation: "rollback", RotationOperation: "rotate",
	} {
		if string(op) != want {
			t.Errorf("%s is %s", want, op)
		}
	}
}

func TestIsSnapshotReadOrList(t *testing.T) {
	for _, c := range []struct {
		op   Operation
		id   string
		want bool
	}{
		{ReadOperation, "id", true},
		{ListOperation, "id", true},
		{UpdateOperation, "id", false},
		{ReadOperation, "", false},
	} {
		if got := (&Request{Operation: c.op, RequiresSnapshotID: c.id}).IsSnapshotReadOrList(); got != c.want {
			t.Errorf("%s %q: %v", c.op, c.id, got)
		}
	}
}

func filledRequest(t *testing.T) *Request {
	t.Helper()
	addr, err := sockaddr.NewIPv4Addr("10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	lease := LeaseOptions{TTL: time.Hour, Increment: time.Minute}
	return &Request{
		ID: "id", Operation: UpdateOperation, Path: "p", ClientToken: "t",
		Data: map[string]interface{}{
			"m": map[string]interface{}{"l": []interface{}{"a", map[string]interface{}{"n": 1}}},
			"s": []string{"a"}, "i": []int{1}, "b": []byte("b"), "kv": map[string]string{"a": "b"},
		},
		Headers:  map[string][]string{"H": {"v"}},
		MFACreds: MFACreds{"m": {"c"}},
		WrapInfo: &RequestWrapInfo{TTL: time.Minute},
		Secret:   &Secret{LeaseOptions: lease, InternalData: map[string]interface{}{"k": []interface{}{1}}},
		Auth: &Auth{
			LeaseOptions: lease, InternalData: map[string]interface{}{"k": 1}, Policies: []string{"p"}, TokenPolicies: []string{"p"},
			IdentityPolicies: []string{"p"}, ExternalNamespacePolicies: map[string][]string{"n": {"p"}}, Metadata: map[string]string{"m": "v"},
			Alias: &Alias{Name: "a"}, GroupAliases: []*Alias{{Name: "g"}}, BoundCIDRs: []*sockaddr.SockAddrMarshaler{{SockAddr: addr}},
			MFARequirement: &MFARequirement{MfaRequestId: "m"},
		},
	}
}

func TestClone(t *testing.T) {
	storage, connection := &InmemStorage{}, &Connection{ConnState: &tls.ConnectionState{}}
	req := filledRequest(t)
	req.Storage, req.Connection = storage, connection

	c, err := req.Clone()
	if err != nil {
		t.Fatal(err)
	}
	if c.Storage != Storage(storage) || c.Connection != connection {
		t.Error("storage or connection are not shared")
	}
	if !reflect.DeepEqual(c, req) {
		t.Errorf("got %+v, want %+v", c, req)
	}

	c.Path = "other"
	inner := c.Data["m"].(map[string]interface{})["l"].([]interface{})
	inner[0], inner[1].(map[string]interface{})["n"] = "z", 2
	c.Data["s"].([]string)[0] = "z"
	c.Data["i"].([]int)[0] = 2
	c.Data["b"].([]byte)[0] = 'z'
	c.Data["kv"].(map[string]string)["a"] = "z"
	c.Data["new"] = 1
	c.Headers["H"][0] = "z"
	c.MFACreds["m"][0] = "z"
	c.WrapInfo.TTL = 0
	c.Secret.TTL = 0
	c.Secret.InternalData["k"].([]interface{})[0] = 2
	c.Auth.TTL = 0
	c.Auth.InternalData["k"] = 2
	c.Auth.Policies[0], c.Auth.TokenPolicies[0], c.Auth.IdentityPolicies[0] = "z", "z", "z"
	c.Auth.ExternalNamespacePolicies["n"][0] = "z"
	c.Auth.Metadata["m"] = "z"
	c.Auth.Alias.Name = "z"
	c.Auth.GroupAliases[0].Name = "z"
	c.Auth.BoundCIDRs[0] = nil
	c.Auth.MFARequirement.MfaRequestId = "z"

	want := filledRequest(t)
	want.Storage, want.Connection = storage, connection
	// The clone's protobuf messages have state of their own, so compare what can be seen.
	for _, r := range []*Request{req, want} {
		if r.Auth.Alias.GetName() != "a" || r.Auth.GroupAliases[0].GetName() != "g" || r.Auth.MFARequirement.GetMfaRequestId() != "m" {
			t.Error("messages are shared")
		}
		r.Auth.Alias, r.Auth.GroupAliases, r.Auth.MFARequirement = nil, nil, nil
	}
	if !reflect.DeepEqual(req, want) {
		t.Errorf("the original became %+v", req)
	}

	if empty, err := (&Request{}).Clone(); err != nil || !reflect.DeepEqual(empty, &Request{}) {
		t.Errorf("got %+v, %v", empty, err)
	}
}
