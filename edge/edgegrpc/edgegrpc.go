// SPDX-License-Identifier: MPL-2.0

// Package edgegrpc has a gRPC server verify the API keys of its calls with an edge.
//
//	grpc.NewServer(
//		grpc.UnaryInterceptor(edgegrpc.Unary(verifier, guard)),
//		grpc.StreamInterceptor(edgegrpc.Stream(verifier, guard)),
//	)
//
// The key is in the metadata authorization (Bearer) or x-api-key. The verdict is in the
// context of the call, see edge.FromContext; the key is not in its metadata any more.
package edgegrpc

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/bearer"
)

// Guard says what a call must have to pass. The zero Guard asks for a good key.
type Guard struct {
	// Scopes that a method asks for, all of them: by its full name, as in
	// /shop.Orders/List.
	Scopes func(method string) []string
	// RemoteAddr is the address of who calls, by default that of the connection.
	RemoteAddr func(context.Context) netip.Addr
	// Open reports whether a method is for everybody, as health checks are: it is not
	// asked for a key.
	Open func(method string) bool
}

// Unary guards calls with one request and one answer.
func Unary(v *edge.Verifier, g Guard) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := g.check(ctx, v, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// Stream guards streams: the key is verified when one begins.
func Stream(v *edge.Verifier, g Guard) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := g.check(stream.Context(), v, info.FullMethod)
		if err != nil {
			return err
		}
		return next(srv, &guarded{stream, ctx})
	}
}

type guarded struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // that of the stream
}

func (s *guarded) Context() context.Context { return s.ctx }

// check is the context of a call that passes, or the status of one that does not.
func (g *Guard) check(ctx context.Context, v *edge.Verifier, method string) (context.Context, error) {
	if g.Open != nil && g.Open(method) {
		return ctx, nil
	}
	md, _ := metadata.FromIncomingContext(ctx) // a copy
	authorization, apiKey := strings.ToLower(bearer.Authorization), strings.ToLower(bearer.APIKey)
	key, inAuthorization, err := bearer.Key(md.Get(authorization), md.Get(apiKey))
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	req := edge.Request{Key: key}
	if g.Scopes != nil {
		req.Scopes = g.Scopes(method)
	}
	if g.RemoteAddr != nil {
		req.RemoteAddr = g.RemoteAddr(ctx)
	} else if p, ok := peer.FromContext(ctx); ok {
		if tcp, ok := p.Addr.(*net.TCPAddr); ok {
			req.RemoteAddr = tcp.AddrPort().Addr()
		}
	}
	verdict, err := v.Verify(ctx, req)
	if err != nil {
		return nil, status.Error(codes.Unavailable, "the key cannot be verified now")
	}
	if !verdict.Valid {
		return nil, status.Error(code(&verdict), strings.TrimSuffix(verdict.Code+": "+verdict.Hint, ": "))
	}
	md.Delete(apiKey)
	if inAuthorization {
		md.Delete(authorization)
	}
	return edge.NewContext(metadata.NewIncomingContext(ctx, md), &verdict), nil
}

func code(verdict *edge.Verdict) codes.Code {
	switch verdict.Status() {
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	default:
		return codes.Unauthenticated
	}
}
