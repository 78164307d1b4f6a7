// SPDX-License-Identifier: MPL-2.0

// Package edge verifies API keys beside the requests that carry them: a key that was
// seen before is judged in about a microsecond, without a call, also while the server
// is away.
//
// It does not cache answers. The engine hands out timelines, the finite future of a
// key, so that activations and ends are exact by the clock; and it tells in a feed
// what was decided, so that a revocation counts within a second. What the server has
// not confirmed for too long is not accepted.
//
//	v, err := edge.New(edge.Options{Client: client, Mount: "apikeys"})
//	…
//	verdict, err := v.Verify(ctx, edge.Request{Key: presented, Scopes: []string{"orders:read"}})
//	switch {
//	case err != nil:      // nobody could be asked: 503, never 401
//	case !verdict.Valid:  // verdict.Code says why
//	}
//
// The words and codes are those of the engine's verify. A Verifier holds no key and no
// secret of the engine: what it learned is kept under a digest with a random key of its
// own.
package edge
