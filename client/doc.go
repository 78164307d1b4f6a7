// SPDX-License-Identifier: MPL-2.0

// Package client gives a program the API key that it calls others with: always a good
// one, whatever is rotated meanwhile, and also while the server is away.
//
// A [Source] reads the key of a role, reads it again as the engine says, and keeps the
// last one while the server cannot be reached. Of a dynamic role it renews the lease,
// and replaces the key before the lease, or the token that issued it, ends. A
// [Transport] adds the key to HTTP requests; a request that is refused because the key
// was revoked a moment ago is made once more with the next one.
//
// The policy of a consumer is bootstrap/policies/consumer.hcl; docs/consumers.md is the
// guide.
//
// A Source keeps goroutines and a random sequence of its own: do not share one over a
// fork, make one in each process.
package client
