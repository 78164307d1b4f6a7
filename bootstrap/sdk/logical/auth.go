// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"time"

	"github.com/hashicorp/go-sockaddr"
)

// Auth is the outcome of a login: in the response of an auth method, and in requests to renew it.
type Auth struct {
	LeaseOptions

	// InternalData is stored with the token and comes back on renewal. It must be JSON-encodable.
	InternalData map[string]interface{} `json:"internal_data"`

	DisplayName string `json:"display_name"`

	// Policies are all of them, the next two tell them by origin.
	Policies         []string `json:"policies"`
	TokenPolicies    []string `json:"token_policies"`
	IdentityPolicies []string `json:"identity_policies"`

	// ExternalNamespacePolicies are by namespace id.
	ExternalNamespacePolicies map[string][]string `json:"external_namespace_policies"`

	NoDefaultPolicy bool `json:"no_default_policy"`

	Metadata map[string]string `json:"metadata"`

	// ClientToken and Accessor are the server's to assign.
	ClientToken string `json:"client_token"`
	Accessor    string `json:"accessor"`

	// Period makes the token live on as long as it is renewed within it.
	Period time.Duration `json:"period"`

	ExplicitMaxTTL time.Duration `json:"explicit_max_ttl"`

	// NumUses limits how often the token can be used; 0 is no limit.
	NumUses int `json:"num_uses"`

	EntityID     string   `json:"entity_id"`
	Alias        *Alias   `json:"alias"`
	GroupAliases []*Alias `json:"group_aliases"`

	BoundCIDRs []*sockaddr.SockAddrMarshaler `json:"bound_cidrs"`

	CreationPath string `json:"creation_path"`

	TokenType TokenType `json:"token_type"`

	Orphan bool `json:"orphan"`

	MFARequirement *MFARequirement `json:"mfa_requirement"`

	EntityCreated bool `json:"entity_created"`
}
