// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"

	"google.golang.org/protobuf/types/known/structpb"
)

// Well-known metadata keys of events. The server prefixes the value of data_path with the mount.
const (
	EventMetadataPath      = "path"
	EventMetadataDataPath  = "data_path"
	EventMetadataOperation = "operation"
	EventMetadataModified  = "modified"

	extraMetadataArgument = "EXTRA_VALUE_AT_END"
)

// EventType names a kind of event.
type EventType string

// EventSender sends events. They are best effort.
type EventSender interface {
	SendEvent(ctx context.Context, eventType EventType, event *EventData) error
}

// ObservationRecorder records observations. They are best effort.
type ObservationRecorder interface {
	RecordObservationFromPlugin(ctx context.Context, observationType string, data map[string]interface{}) error
}

// NewEvent makes an event with a random id.
func NewEvent() (*EventData, error) {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	return &EventData{
		Id: fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16]),
	}, nil
}

// SendEvent sends an event with the metadata given as pairs of key and value.
func SendEvent(ctx context.Context, sender EventSender, eventType string, metadataPairs ...string) error {
	event, err := NewEvent()
	if err != nil {
		return err
	}
	fields := make(map[string]*structpb.Value, (len(metadataPairs)+1)/2)
	for i := 0; i+1 < len(metadataPairs); i += 2 {
		fields[metadataPairs[i]] = structpb.NewStringValue(metadataPairs[i+1])
	}
	if n := len(metadataPairs); n%2 != 0 {
		fields[extraMetadataArgument] = structpb.NewStringValue(metadataPairs[n-1])
	}
	event.Metadata = &structpb.Struct{Fields: fields}
	return sender.SendEvent(ctx, EventType(eventType), event)
}

// MockEvent is one event that a MockEventSender got.
type MockEvent struct {
	Type  EventType
	Event *EventData
}

// MockEventSender keeps what it gets, for tests, until stopped.
type MockEventSender struct {
	sync.Mutex
	Events  []MockEvent
	Stopped bool
}

var _ EventSender = (*MockEventSender)(nil)

// NewMockEventSender returns an empty one.
func NewMockEventSender() *MockEventSender { return &MockEventSender{} }

// SendEvent implements EventSender.
func (m *MockEventSender) SendEvent(_ context.Context, eventType EventType, event *EventData) error {
	m.Lock()
	defer m.Unlock()
	if !m.Stopped {
		m.Events = append(m.Events, MockEvent{Type: eventType, Event: event})
	}
	return nil
}

// Stop makes it ignore what comes after.
func (m *MockEventSender) Stop() {
	m.Lock()
	defer m.Unlock()
	m.Stopped = true
}
