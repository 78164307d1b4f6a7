// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"context"
	"regexp"
	"testing"
)

func TestNewEvent(t *testing.T) {
	seen := map[string]bool{}
	for range 10 {
		event, err := NewEvent()
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(event.Id) || seen[event.Id] {
			t.Errorf("id is %q", event.Id)
		}
		seen[event.Id] = true
	}
}

func TestSendEvent(t *testing.T) {
	sender := NewMockEventSender()
	ctx := context.Background()
	if err := SendEvent(ctx, sender, "kind", EventMetadataPath, "p", EventMetadataModified, "true", "extra"); err != nil {
		t.Fatal(err)
	}
	if err := SendEvent(ctx, sender, "bare"); err != nil {
		t.Fatal(err)
	}
	sender.Stop()
	if err := SendEvent(ctx, sender, "late"); err != nil {
		t.Fatal(err)
	}

	if len(sender.Events) != 2 || sender.Events[0].Type != "kind" || sender.Events[1].Type != "bare" {
		t.Fatalf("events are %v", sender.Events)
	}
	fields := sender.Events[0].Event.Metadata.AsMap()
	if len(fields) != 3 || fields["path"] != "p" || fields["modified"] != "true" || fields["EXTRA_VALUE_AT_END"] != "extra" {
		t.Errorf("metadata is %v", fields)
	}
	if bare := sender.Events[1].Event; bare.Id == "" || len(bare.Metadata.AsMap()) != 0 {
		t.Errorf("event is %v", bare)
	}
	if EventMetadataDataPath != "data_path" || EventMetadataOperation != "operation" {
		t.Error("metadata keys have changed")
	}
}
