// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/api"
)

// story is told by one teller; the fleet's rotation is watched beside it and reported when it happens.
type story struct {
	n       *narrator
	client  *api.Client
	options options // of its server
}

const (
	grace     = 5 * time.Second
	fleetSize = 24
	// fleetJitter spreads the fleet over the seconds after each minute, so that whenever the demo is
	// started some role is due within its time.
	fleetJitter = "14s"
)

func (s *story) tell(ctx context.Context) error {
	watched, err := s.fleet(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	seen := make(chan error, 1)
	go func() { seen <- s.watch(ctx, watched) }()
	for _, chapter := range []func(context.Context) error{s.issue, s.rotate, s.consumer, s.lease, s.outage} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	select {
	case err := <-seen:
		return err
	default:
	}
	s.n.chapter("Waiting for the clock")
	s.n.say("%s rotates by itself at %s, in %.0f seconds. Nobody calls anything.", watched.role, watched.due.Format("15:04:05"), time.Until(watched.due).Seconds())
	return <-seen
}

func (s *story) issue(ctx context.Context) error {
	s.n.chapter("One key, read and verified")
	s.n.tell(ctx, "The platform team declares a role.")
	s.n.do("vault write apikeys/roles/orders prefix=acme_live scopes=orders:read owner=team-orders")
	_, err := s.write(ctx, "roles/orders", map[string]any{"prefix": "acme_live", "scopes": []string{"orders:read"}, "owner": "team-orders"})
	if err != nil {
		return err
	}
	s.n.tell(ctx, "An application reads its current key.")
	k, err := s.creds(ctx, "orders")
	if err != nil {
		return err
	}
	s.n.do("vault read apikeys/creds/orders")
	s.n.show("api_key %s  version %d  read again within %d s", k, k.version, k.ttl)
	s.n.tell(ctx, "An API asks whether the key that it was shown is good.")
	return s.expect(ctx, k, "VALID", "current")
}

func (s *story) rotate(ctx context.Context) error {
	s.n.chapter("A rotation without an outage")
	before, err := s.creds(ctx, "orders")
	if err != nil {
		return err
	}
	s.n.tell(ctx, "The key is rotated. The old one shall live %.0f more seconds (a day, unless told otherwise).", grace.Seconds())
	s.n.do("vault write apikeys/rotate/orders grace_period=%s reason=\"to show it\"", grace)
	answer, err := s.write(ctx, "rotate/orders", map[string]any{"grace_period": grace.String(), "reason": "to show it"})
	if err != nil {
		return err
	}
	s.n.show("version %d is current, version %d ends at %s", num(answer.Data, "version"), num(answer.Data, "previous_version"), str(answer.Data, "previous_valid_until"))
	after, err := s.creds(ctx, "orders")
	if err != nil {
		return err
	}
	if after.version != before.version+1 || after.secret == before.secret {
		return fmt.Errorf("after the rotation version %d is read, told was %d", after.version, before.version+1)
	}
	s.n.tell(ctx, "Whoever reads now gets the new one: %s. Both are good.", after)
	if err := s.expect(ctx, before, "VALID", "previous"); err != nil {
		return err
	}
	if err := s.expect(ctx, after, "VALID", "current"); err != nil {
		return err
	}
	s.n.tell(ctx, "The grace passes …")
	err = until(ctx, 3*grace, "the end of the grace", func() (bool, error) {
		v, err := s.verify(ctx, before)
		return !v.valid, err
	})
	if err != nil {
		return err
	}
	s.n.tell(ctx, "It is over: the old key is refused, with the reason.")
	if err := s.expect(ctx, before, "RETIRED", ""); err != nil {
		return err
	}
	now, err := s.creds(ctx, "orders")
	if err != nil {
		return err
	}
	if now.secret != after.secret {
		return errors.New("another key than the new one is read")
	}
	s.n.tell(ctx, "The new one is what everybody reads, and it is good.")
	return s.expect(ctx, now, "VALID", "current")
}

func (s *story) lease(ctx context.Context) error {
	s.n.chapter("A key of one's own, with a lease")
	s.n.tell(ctx, "A dynamic role gives every reader a key of its own.")
	s.n.do("vault write apikeys/roles/batch-jobs type=dynamic ttl=5m scopes=orders:read")
	_, err := s.write(ctx, "roles/batch-jobs", map[string]any{"type": "dynamic", "ttl": "5m", "scopes": []string{"orders:read"}})
	if err != nil {
		return err
	}
	mine, err := s.creds(ctx, "batch-jobs")
	if err != nil {
		return err
	}
	yours, err := s.creds(ctx, "batch-jobs")
	if err != nil {
		return err
	}
	if mine.lease.LeaseID == "" || mine.secret == yours.secret {
		return errors.New("a dynamic role handed out a key without lease, or one twice")
	}
	s.n.do("vault read apikeys/creds/batch-jobs     (twice)")
	s.n.show("api_key %s  lease of %d s", mine, mine.lease.LeaseDuration)
	s.n.show("api_key %s  lease of %d s", yours, yours.lease.LeaseDuration)
	if err := s.expect(ctx, mine, "VALID", ""); err != nil {
		return err
	}
	s.n.tell(ctx, "The first lease is revoked, as its job is done. Its key dies, the other one lives.")
	s.n.do("vault lease revoke -sync %s…", mine.lease.LeaseID[:min(len(mine.lease.LeaseID), len("apikeys/creds/batch-jobs/")+4)])
	if err := s.client.Sys().RevokeWithOptionsWithContext(ctx, &api.RevokeOptions{LeaseID: mine.lease.LeaseID, Sync: true}); err != nil {
		return fmt.Errorf("revoke the lease: %w", err)
	}
	if err := s.expect(ctx, mine, "REVOKED", ""); err != nil {
		return err
	}
	return s.expect(ctx, yours, "VALID", "")
}
