// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"net/http"
	"time"
)

// RequestWrapInfo is the wrapping that a client asked for.
type RequestWrapInfo struct {
	TTL      time.Duration `json:"ttl"`
	Format   string        `json:"format"`
	SealWrap bool          `json:"seal_wrap"`
}

// ClientTokenSource tells which header brought the token.
type ClientTokenSource uint32

const (
	NoClientToken ClientTokenSource = iota
	ClientTokenFromVaultHeader
	ClientTokenFromAuthzHeader
)

// MFACreds are the values of the MFA header by method.
type MFACreds map[string][]string

// Request is one request to a backend.
type Request struct {
	// ID is unique, and empty on renewal, revocation and rollback.
	ID string `json:"id"`

	// ReplicationCluster is the secondary that forwarded the request, if any.
	ReplicationCluster string `json:"replication_cluster"`

	Operation Operation `json:"operation"`

	// Path is without the mount point.
	Path string `json:"path"`

	Data map[string]interface{} `json:"map"`

	Storage Storage `json:"-"`

	// Secret is set on renewal and revocation.
	Secret *Secret `json:"secret"`

	// Auth is set on the renewal of a token.
	Auth *Auth `json:"auth"`

	// Headers are those that the mount lets through.
	Headers map[string][]string `json:"headers"`

	Connection *Connection `json:"connection"`

	// ClientToken reaches backends salted.
	ClientToken         string `json:"client_token"`
	ClientTokenAccessor string `json:"client_token_accessor"`

	DisplayName string `json:"display_name"`

	MountPoint    string `json:"mount_point"`
	MountType     string `json:"mount_type"`
	MountAccessor string `json:"mount_accessor"`

	WrapInfo *RequestWrapInfo `json:"wrap_info"`

	ClientTokenRemainingUses int `json:"client_token_remaining_uses"`

	EntityID string `json:"entity_id"`

	PolicyOverride bool `json:"policy_override"`

	Unauthenticated bool `json:"unauthenticated"`

	// PathLimited says that the path comes under the request limiter.
	PathLimited bool `json:"path_limited"`

	// RequestLimiterDisabled exempts the request from it.
	RequestLimiterDisabled bool `json:"-"`

	// RequiresSnapshotID names the loaded snapshot to read from.
	RequiresSnapshotID string `json:"requires_snapshot_id"`

	// RotationID names the job behind a rotate operation.
	RotationID string `json:"rotation_id"`

	// ChrootNamespace is that of the listener.
	ChrootNamespace string `json:"chroot_namespace,omitempty"`

	// The rest is the server's own and never reaches an external plugin.

	MFACreds          MFACreds `json:"mfa_creds"`
	ClientTokenSource ClientTokenSource
	HTTPRequest       *http.Request `json:"-"`
	ClientID          string        `json:"client_id"`
	InboundSSCToken   string
	ForwardedFrom     string `json:"forwarded_from,omitempty"`
}

// Get looks up a key of Data, which may be nil.
func (r *Request) Get(key string) interface{} {
	if r.Data == nil {
		return nil
	}
	return r.Data[key]
}

// GetString is Get for strings; anything else is "".
func (r *Request) GetString(key string) string {
	s, _ := r.Get(key).(string)
	return s
}

// IsSnapshotReadOrList reports whether the request reads from a snapshot, in which case caches must stay out of it.
func (r *Request) IsSnapshotReadOrList() bool {
	return r.RequiresSnapshotID != "" && (r.Operation == ReadOperation || r.Operation == ListOperation)
}

// RenewRequest asks for a lease to be renewed.
func RenewRequest(path string, secret *Secret, data map[string]interface{}) *Request {
	return &Request{Operation: RenewOperation, Path: path, Data: data, Secret: secret}
}

// RenewAuthRequest asks for a token to be renewed.
func RenewAuthRequest(path string, auth *Auth, data map[string]interface{}) *Request {
	return &Request{Operation: RenewOperation, Path: path, Data: data, Auth: auth}
}

// RevokeRequest asks for a lease to be revoked.
func RevokeRequest(path string, secret *Secret, data map[string]interface{}) *Request {
	return &Request{Operation: RevokeOperation, Path: path, Data: data, Secret: secret}
}

// RollbackRequest is the periodic call.
func RollbackRequest(path string) *Request {
	return &Request{Operation: RollbackOperation, Path: path, Data: map[string]interface{}{}}
}

// Operation is what a request asks for.
type Operation string

// The operations. As in the official SDK only the first constant of each group is typed, so that code
// that compiles here does not depend on more.
const (
	// Per path.
	CreateOperation         Operation = "create"
	ReadOperation                     = "read"
	UpdateOperation                   = "update"
	PatchOperation                    = "patch"
	DeleteOperation                   = "delete"
	ListOperation                     = "list"
	HelpOperation                     = "help"
	AliasLookaheadOperation           = "alias-lookahead"
	ResolveRoleOperation              = "resolve-role"
	HeaderOperation                   = "header"
	RecoverOperation                  = "recover"

	// Per mount.
	RevokeOperation   Operation = "revoke"
	RenewOperation              = "renew"
	RollbackOperation           = "rollback"
	RotationOperation           = "rotate"
)

// InitializationRequest comes with Initialize.
type InitializationRequest struct {
	Storage Storage
}
