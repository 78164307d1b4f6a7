// SPDX-License-Identifier: MPL-2.0

package consts

import (
	"encoding/json"
	"fmt"
)

// PluginType tells what kind of plugin a binary holds. The numbers are stored by servers.
type PluginType uint32

const (
	PluginTypeUnknown PluginType = iota
	PluginTypeCredential
	PluginTypeDatabase
	PluginTypeSecrets
)

// PluginTypes lists every type.
var PluginTypes = []PluginType{
	PluginTypeUnknown,
	PluginTypeCredential,
	PluginTypeDatabase,
	PluginTypeSecrets,
}

func (p PluginType) String() string {
	switch p {
	case PluginTypeUnknown:
		return "unknown"
	case PluginTypeCredential:
		return "auth"
	case PluginTypeDatabase:
		return "database"
	case PluginTypeSecrets:
		return "secret"
	default:
		return "unsupported"
	}
}

// ParsePluginType is the inverse of String.
func ParsePluginType(pluginType string) (PluginType, error) {
	for _, p := range PluginTypes {
		if p.String() == pluginType {
			return p, nil
		}
	}
	return PluginTypeUnknown, fmt.Errorf("%q is not a supported plugin type", pluginType)
}

var _ json.Unmarshaler = (*PluginType)(nil)

// UnmarshalJSON accepts the name and the number.
func (p *PluginType) UnmarshalJSON(data []byte) error {
	var name string
	if err := json.Unmarshal(data, &name); err == nil {
		parsed, err := ParsePluginType(name)
		if err != nil {
			return err
		}
		*p = parsed
		return nil
	}
	var number uint32
	if err := json.Unmarshal(data, &number); err != nil {
		return err
	}
	*p = PluginType(number)
	return nil
}

// MarshalJSON writes the name.
func (p PluginType) MarshalJSON() ([]byte, error) {
	return json.Marshal(p.String())
}
