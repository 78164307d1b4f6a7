// SPDX-License-Identifier: MPL-2.0

package pb

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-sockaddr"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/helper/wrapping"
	"github.com/hashicorp/vault/sdk/logical"
)

func TestErrorKinds(t *testing.T) {
	for kind, err := range map[uint32]error{
		0:  errors.New("plain"),
		1:  errutil.UserError{Err: "user"},
		2:  errutil.InternalError{Err: "internal"},
		3:  logical.CodedError(404, "coded"),
		4:  &logical.StatusBadRequest{Err: "bad"},
		5:  logical.ErrUnsupportedOperation,
		6:  logical.ErrUnsupportedPath,
		7:  logical.ErrInvalidRequest,
		8:  logical.ErrPermissionDenied,
		9:  logical.ErrMultiAuthzPending,
		10: logical.ErrUnrecoverable,
	} {
		out := ErrToProtoErr(err)
		if out.GetErrType() != kind || out.GetErrMsg() != err.Error() {
			t.Errorf("%v: encoded as %v", err, out)
		}
		if back := ProtoErrToErr(out); !reflect.DeepEqual(back, err) {
			t.Errorf("%v: decoded as %#v", err, back)
		}
		// Only the outermost error counts.
		if out := ErrToProtoErr(fmt.Errorf("w: %w", err)); out.GetErrType() != 0 || out.GetErrMsg() != "w: "+err.Error() {
			t.Errorf("wrapped %v: encoded as %v", err, out)
		}
	}

	if ErrToProtoErr(nil) != nil || ProtoErrToErr(nil) != nil {
		t.Error("no error is not nil")
	}
	if err := ProtoErrToErr(&ProtoError{ErrType: 11, ErrMsg: "from the future"}); err != nil {
		t.Errorf("an unknown kind decodes to %v", err)
	}
	if out := ErrToProtoErr(&errutil.UserError{Err: "pointer"}); out.GetErrType() != 0 {
		t.Errorf("pointer to a value error: encoded as %v", out)
	}
	if out := ErrToProtoErr(errors.New("a\xffb")); !utf8.ValidString(out.GetErrMsg()) {
		t.Errorf("encoded as %q", out.GetErrMsg())
	}
}

func TestRefusedMessages(t *testing.T) {
	for name, r := range map[string]*Request{
		"none":              nil,
		"no data":           {},
		"data not JSON":     {Data: "{"},
		"data not a map":    {Data: "[]"},
		"no issue time":     {Data: "null", Secret: &Secret{InternalData: "null", LeaseOptions: &LeaseOptions{}}},
		"bad issue time":    {Data: "null", Secret: &Secret{InternalData: "null", LeaseOptions: &LeaseOptions{IssueTime: &timestamppb.Timestamp{Nanos: -1}}}},
		"no internal data":  {Data: "null", Secret: &Secret{}},
		"bad internal data": {Data: "null", Auth: &Auth{InternalData: "1"}},
		"bad CIDR":          {Data: "null", Auth: &Auth{BoundCidrs: []string{"no address"}}},
		"bad certificate": {Data: "null", Connection: &Connection{ConnectionState: &ConnectionState{
			PeerCertificates: &CertificateChain{Certificates: []*Certificate{{Asn1Data: []byte("x")}}},
		}}},
	} {
		if got, err := ProtoRequestToLogicalRequest(r); err == nil {
			t.Errorf("%s: got %#v", name, got)
		}
	}
	for name, r := range map[string]*Response{
		"no data":          {},
		"no internal data": {Data: "null", Secret: &Secret{}},
		"bad auth":         {Data: "null", Auth: &Auth{InternalData: "{"}},
	} {
		if got, err := ProtoResponseToLogicalResponse(r); err == nil {
			t.Errorf("%s: got %#v", name, got)
		}
	}

	unencodable := map[string]interface{}{"f": func() {}}
	for name, r := range map[string]*logical.Request{
		"none":   nil,
		"data":   {Data: unencodable},
		"secret": {Secret: &logical.Secret{InternalData: unencodable}},
		"auth":   {Auth: &logical.Auth{InternalData: unencodable}},
	} {
		if got, err := LogicalRequestToProtoRequest(r); err == nil {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// What peers may leave out.
func TestAcceptedMessages(t *testing.T) {
	r, err := ProtoRequestToLogicalRequest(&Request{
		Data:       "null",
		Secret:     &Secret{InternalData: "null"},
		Auth:       &Auth{},
		Connection: &Connection{},
		WrapInfo:   &RequestWrapInfo{},
	})
	if err != nil || r.Data != nil || r.Secret.InternalData != nil || !r.Secret.IssueTime.IsZero() ||
		r.Auth.InternalData != nil || r.Auth.BoundCIDRs != nil || r.Connection.ConnState != nil || r.Headers != nil {
		t.Errorf("got %#v, %v", r, err)
	}
	if w := WrapInfoFromProto(&ResponseWrapInfo{}); !w.CreationTime.IsZero() {
		t.Errorf("no creation time became %v", w.CreationTime)
	}
}

func TestAuthAndWrapInfoRoundTrip(t *testing.T) {
	cidr, err := sockaddr.NewSockAddr("192.0.2.0/24")
	if err != nil {
		t.Fatal(err)
	}
	when := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	in := &logical.Response{
		Auth: &logical.Auth{
			LeaseOptions: logical.LeaseOptions{TTL: 1, MaxTTL: 2, Increment: 3, Renewable: true, IssueTime: when},
			InternalData: map[string]interface{}{}, DisplayName: "d", Policies: []string{"p"}, TokenPolicies: []string{"tp"},
			IdentityPolicies: []string{"ip"}, NoDefaultPolicy: true, Metadata: map[string]string{"m": "n"},
			ClientToken: "ct", Accessor: "a", Period: 4, ExplicitMaxTTL: 5, NumUses: 6, EntityID: "e",
			BoundCIDRs: []*sockaddr.SockAddrMarshaler{{SockAddr: cidr}}, TokenType: logical.TokenTypeService,
		},
		WrapInfo: &wrapping.ResponseWrapInfo{
			TTL: 7, Token: "t", Accessor: "wa", CreationTime: when, WrappedAccessor: "wwa", WrappedEntityID: "we",
			Format: "f", CreationPath: "cp", SealWrap: true,
		},
		MountType: "mt",
	}
	wire, err := LogicalResponseToProtoResponse(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ProtoResponseToLogicalResponse(wire)
	if err != nil {
		t.Fatal(err)
	}
	if got := out.Auth.BoundCIDRs[0].String(); got != "192.0.2.0/24" {
		t.Errorf("CIDR became %s", got)
	}
	out.Auth.BoundCIDRs, in.Auth.BoundCIDRs = nil, nil
	if !reflect.DeepEqual(in, out) {
		t.Errorf("got  %#v\nwant %#v", out.Auth, in.Auth)
	}
}
