// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
)

// Names and numbers are on the wire between servers and plugins of all ages.
func TestMessages(t *testing.T) {
	for _, c := range []struct {
		message proto.Message
		name    string
		fields  []string
	}{
		{&Entity{}, "logical.Entity", []string{"1 ID string", "2 name string", "3 aliases repeated message", "4 metadata map", "5 disabled bool", "6 namespace_id string"}},
		{&Alias{}, "logical.Alias", []string{"1 mount_type string", "2 mount_accessor string", "3 name string", "4 metadata map", "5 ID string", "6 namespace_id string", "7 custom_metadata map", "8 local bool"}},
		{&Group{}, "logical.Group", []string{"1 ID string", "2 name string", "3 metadata map", "4 namespace_id string"}},
		{&MFAMethodID{}, "logical.MFAMethodID", []string{"1 type string", "2 id string", "3 uses_passcode bool", "4 name string"}},
		{&MFAConstraintAny{}, "logical.MFAConstraintAny", []string{"1 any repeated message"}},
		{&MFARequirement{}, "logical.MFARequirement", []string{"1 mfa_request_id string", "2 mfa_constraints map"}},
		{&PluginEnvironment{}, "logical.PluginEnvironment", []string{"1 vault_version string", "2 vault_version_prerelease string", "3 vault_version_metadata string"}},
		{&Empty{}, "logical.Empty", nil},
		{&VersionReply{}, "logical.VersionReply", []string{"1 plugin_version string"}},
		{&EventData{}, "logical.EventData", []string{"1 id string", "2 metadata message", "3 entity_ids repeated string", "4 note string"}},
		{&EventPluginInfo{}, "logical.EventPluginInfo", []string{"1 mount_class string", "2 mount_accessor string", "3 mount_path string", "4 plugin string", "5 plugin_version string", "6 version string"}},
		{&EventReceived{}, "logical.EventReceived", []string{"1 event message", "2 namespace string", "3 event_type string", "4 plugin_info message"}},
	} {
		descriptor := c.message.ProtoReflect().Descriptor()
		if string(descriptor.FullName()) != c.name {
			t.Errorf("%T is %s", c.message, descriptor.FullName())
		}
		var fields []string
		for i := range descriptor.Fields().Len() {
			field := descriptor.Fields().Get(i)
			kind := field.Kind().String()
			switch {
			case field.IsMap():
				kind = "map"
			case field.IsList():
				kind = "repeated " + kind
			}
			fields = append(fields, fmt.Sprintf("%d %s %s", field.Number(), field.Name(), kind))
		}
		if !slices.Equal(fields, c.fields) {
			t.Errorf("%s has %q, want %q", c.name, fields, c.fields)
		}
	}
	if PluginVersion_ServiceDesc.ServiceName != "logical.PluginVersion" || PluginVersion_Version_FullMethodName != "/logical.PluginVersion/Version" {
		t.Error("the version service has another name")
	}
}
