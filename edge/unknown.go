// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

const (
	// unknownFor is how long a key is remembered as unknown: a key that is imported or
	// restored counts after that at the latest.
	unknownFor  = 5 * time.Second
	maxUnknown  = 10_000
	maxAddress  = 10_000
	addressBits = 64 // of an IPv6 address: what one client has
)

// unknownKeys are keys that the engine did not know a moment ago. They are apart from
// those that are held, so that no flood of them pushes one out.
type unknownKeys struct {
	cache *lru.Cache[digest, *unknownKey]
}

type unknownKey struct {
	code, hint string
	until      int64 // elapsed
}

func newUnknownKeys() *unknownKeys {
	cache, err := lru.New[digest, *unknownKey](maxUnknown)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &unknownKeys{cache: cache}
}

func (u *unknownKeys) get(d digest, now int64) *unknownKey {
	k, ok := u.cache.Get(d)
	if !ok || now >= k.until {
		return nil
	}
	return k
}

func (u *unknownKeys) put(d digest, now int64, code, hint string) {
	u.cache.Add(d, &unknownKey{code: code, hint: hint, until: now + int64(unknownFor)})
}

// budgets bound how many unknown keys are asked about, together and for one address.
type budgets struct {
	total      *rate.Limiter
	perAddress rate.Limit
	addresses  *lru.Cache[netip.Prefix, *rate.Limiter]
	mu         sync.Mutex
	busy       atomic.Uint64 // requests that were turned away
}

func newBudgets(total, perAddress float64) *budgets {
	addresses, err := lru.New[netip.Prefix, *rate.Limiter](maxAddress)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &budgets{total: rate.NewLimiter(rate.Limit(total), max(1, int(total))), perAddress: rate.Limit(perAddress), addresses: addresses}
}

// allow takes a token of the address first: one client must not use up what all share.
func (b *budgets) allow(addr netip.Addr, now time.Time) bool {
	if addr.IsValid() {
		bits := addr.Unmap().BitLen()
		if bits == 128 {
			bits = addressBits
		}
		network, err := addr.Unmap().WithZone("").Prefix(bits)
		if err != nil {
			return false
		}
		b.mu.Lock()
		own, known := b.addresses.Get(network)
		if !known {
			// A minute's worth at once: an instance that starts sends many keys.
			own = rate.NewLimiter(b.perAddress, max(1, int(b.perAddress*60)))
			b.addresses.Add(network, own)
		}
		b.mu.Unlock()
		if !own.AllowN(now, 1) {
			return false
		}
	}
	return b.total.AllowN(now, 1)
}
