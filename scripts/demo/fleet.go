// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"time"
)

// member is the role of the fleet that is due first.
type member struct {
	role   string
	due    time.Time
	before key
}

// lead is the least time before a rotation at which it can still be announced.
const lead = 3 * time.Second

// fleet declares roles that rotate every minute and picks the one to watch.
func (s *story) fleet(ctx context.Context) (member, error) {
	s.n.chapter("A fleet on a schedule")
	s.n.say("%d roles are told to rotate every minute, spread over the %s that follow it.", fleetSize, fleetJitter)
	s.n.do("vault write apikeys/roles/edge-NN rotation_schedule='* * * * *' rotation_jitter=%s", fleetJitter)
	var next member
	for i := range fleetSize {
		role := fmt.Sprintf("edge-%02d", i+1)
		_, err := s.write(ctx, "roles/"+role, map[string]any{"rotation_schedule": "* * * * *", "rotation_jitter": fleetJitter, "owner": "team-edge"})
		if err != nil {
			return member{}, err
		}
		status, err := s.read(ctx, "status/"+role)
		if err != nil {
			return member{}, err
		}
		due, err := time.Parse(time.RFC3339, str(status.Data, "next_rotation"))
		if err != nil {
			return member{}, fmt.Errorf("status/%s: next_rotation: %w", role, err)
		}
		if time.Until(due) > lead && (next.role == "" || due.Before(next.due)) {
			next = member{role: role, due: due}
		}
	}
	if next.role == "" {
		return member{}, fmt.Errorf("no role of the fleet is due")
	}
	var err error
	if next.before, err = s.creds(ctx, next.role); err != nil {
		return member{}, err
	}
	s.n.say("The first to come is %s at %s. An application reads it all the while: version %d, %s.", next.role, next.due.Format("15:04:05"), next.before.version, next.before)
	return next, nil
}

// watch reads the role as an application would and tells when another key comes.
func (s *story) watch(ctx context.Context, m member) error {
	var after key
	err := until(ctx, time.Until(m.due)+30*time.Second, "the rotation of "+m.role, func() (bool, error) {
		k, err := s.creds(ctx, m.role)
		after = k
		return err == nil && k.secret != m.before.secret, err
	})
	if err != nil {
		return err
	}
	seen := time.Now()
	if after.version != m.before.version+1 {
		return fmt.Errorf("%s went from version %d to %d", m.role, m.before.version, after.version)
	}
	if early := m.due.Sub(seen); early > 2*time.Second {
		return fmt.Errorf("%s rotated %s before its time", m.role, early)
	}
	s.n.say("★ By itself, at %s: %s now hands out version %d, %s.", seen.Format("15:04:05"), m.role, after.version, after)
	old, err := s.verify(ctx, m.before)
	if err != nil {
		return err
	}
	fresh, err := s.verify(ctx, after)
	if err != nil {
		return err
	}
	if !old.valid || old.state != "previous" || !fresh.valid || fresh.state != "current" {
		return fmt.Errorf("after the automatic rotation the old key is %s %s, the new one %s %s", old.code, old.state, fresh.code, fresh.state)
	}
	s.n.show("The old key is %s for another %.0f s: nobody who read it is cut off.", old.state, time.Until(old.expires).Seconds())
	return nil
}
