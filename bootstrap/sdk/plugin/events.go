// SPDX-License-Identifier: MPL-2.0

package plugin

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
)

// Events and observations exist in Vault only. With a server that does not
// know them they are dropped, as they are by a Vault without subscribers.

type eventsClient struct {
	client pb.EventsClient
}

var _ logical.EventSender = (*eventsClient)(nil)

func (e *eventsClient) SendEvent(ctx context.Context, eventType logical.EventType, event *logical.EventData) error {
	_, err := e.client.SendEvent(ctx, &pb.SendEventRequest{EventType: string(eventType), Event: event})
	return unlessUnimplemented(err)
}

type observationsClient struct {
	client pb.ObservationsClient
}

var _ logical.ObservationRecorder = (*observationsClient)(nil)

func (o *observationsClient) RecordObservationFromPlugin(ctx context.Context, observationType string, data map[string]interface{}) error {
	fields, err := structpb.NewStruct(data)
	if err != nil {
		return fmt.Errorf("encode observation: %w", err)
	}
	_, err = o.client.RecordObservation(ctx, &pb.RecordObservationRequest{ObservationType: observationType, Data: fields})
	return unlessUnimplemented(err)
}

func unlessUnimplemented(err error) error {
	if status.Code(err) == codes.Unimplemented {
		return nil
	}
	return err
}

// eventsServer and observationsServer accept and drop: this host has nobody to
// tell.
type eventsServer struct {
	pb.UnimplementedEventsServer
}

func (eventsServer) SendEvent(context.Context, *pb.SendEventRequest) (*pb.Empty, error) {
	return &pb.Empty{}, nil
}

type observationsServer struct {
	pb.UnimplementedObservationsServer
}

func (observationsServer) RecordObservation(context.Context, *pb.RecordObservationRequest) (*pb.Empty, error) {
	return &pb.Empty{}, nil
}
