// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
)

// Clone copies everything that a handler could change. Storage, Connection and HTTPRequest are shared.
func (r *Request) Clone() (*Request, error) {
	c := *r
	c.Data = cloneMap(r.Data)
	c.Headers = cloneLists(r.Headers)
	c.MFACreds = cloneLists(r.MFACreds)
	if r.WrapInfo != nil {
		wrap := *r.WrapInfo
		c.WrapInfo = &wrap
	}
	if r.Secret != nil {
		secret := *r.Secret
		secret.InternalData = cloneMap(r.Secret.InternalData)
		c.Secret = &secret
	}
	if r.Auth != nil {
		c.Auth = r.Auth.clone()
	}
	return &c, nil
}

func (a *Auth) clone() *Auth {
	c := *a
	c.InternalData = cloneMap(a.InternalData)
	c.Policies = slices.Clone(a.Policies)
	c.TokenPolicies = slices.Clone(a.TokenPolicies)
	c.IdentityPolicies = slices.Clone(a.IdentityPolicies)
	c.ExternalNamespacePolicies = cloneLists(a.ExternalNamespacePolicies)
	c.Metadata = maps.Clone(a.Metadata)
	c.BoundCIDRs = slices.Clone(a.BoundCIDRs)
	if a.Alias != nil {
		c.Alias = proto.CloneOf(a.Alias)
	}
	c.GroupAliases = slices.Clone(a.GroupAliases)
	for i, alias := range c.GroupAliases {
		c.GroupAliases[i] = proto.CloneOf(alias)
	}
	if a.MFARequirement != nil {
		c.MFARequirement = proto.CloneOf(a.MFARequirement)
	}
	return &c
}

func cloneLists[M ~map[string][]string](m M) M {
	c := maps.Clone(m)
	for k, list := range c {
		c[k] = slices.Clone(list)
	}
	return c
}

func cloneMap(m map[string]interface{}) map[string]interface{} {
	c := maps.Clone(m)
	for k, v := range c {
		c[k] = cloneValue(v)
	}
	return c
}

// cloneValue knows the containers that request data is made of.
func cloneValue(v interface{}) interface{} {
	switch v := v.(type) {
	case map[string]interface{}:
		return cloneMap(v)
	case map[string]string:
		return maps.Clone(v)
	case []interface{}:
		c := slices.Clone(v)
		for i := range c {
			c[i] = cloneValue(c[i])
		}
		return c
	case []string:
		return slices.Clone(v)
	case []int:
		return slices.Clone(v)
	case []byte:
		return slices.Clone(v)
	default:
		return v
	}
}
