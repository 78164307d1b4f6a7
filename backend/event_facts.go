// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"reflect"
	"slices"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// What a commit tells follows from the record before and the one after, whatever the
// transition was: so no transition can forget to tell, and none tells twice. What the
// clock did is told by the commit that marks it.

// maxFact is how many bytes one event comes to at most.
const maxFact = 4 << 10

// roleChanged is what a transition did to a role.
type roleChanged struct {
	old, rec *roleRecord // old is nil for a role that was made
	now      time.Time
	by       teller
	// gone: the role is deleted by it; rec is the copy that is kept.
	gone bool
}

// facts are the events that the change of a role tells, in the order of their times.
func (c *roleChanged) facts() []fact {
	var all []fact
	switch {
	case c.old == nil:
		all = append(all, c.roleFact(tellsCreated, map[string]any{"type": c.rec.Type}))
	case c.gone:
		// What ended with the role goes without saying.
		all = append(all, c.versionFacts()...)
		return append(all, c.roleFact(tellsDeleted, map[string]any{
			"restorable_until": stamp(c.rec.PurgeAt), "reason_code": string(c.rec.DeletedCode),
		}))
	case c.old.marked() && !c.rec.marked():
		data := map[string]any{}
		if c.old.Name != c.rec.Name {
			data["former_name"] = c.old.Name
		}
		all = append(all, c.roleFact(tellsRestored, data))
	case !c.rec.marked():
		if changed := changedFields(&c.old.Policy, &c.rec.Policy); len(changed) > 0 {
			all = append(all, c.roleFact(tellsUpdated, map[string]any{"fields": changed}))
		}
	}
	return append(all, c.versionFacts()...)
}

// changedFields are the names of the fields in which two policies differ.
func changedFields(before, after *policy.Policy) []string {
	if reflect.DeepEqual(before, after) {
		return nil
	}
	fields := func(p *policy.Policy) map[string]json.RawMessage {
		all := map[string]json.RawMessage{}
		if data, err := json.Marshal(p); err == nil {
			_ = json.Unmarshal(data, &all) // an object, as it was made here
		}
		return all
	}
	was, is := fields(before), fields(after)
	var changed []string
	for name := range is {
		if string(was[name]) != string(is[name]) {
			changed = append(changed, name)
		}
	}
	for name := range was {
		if _, there := is[name]; !there {
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	return changed
}

// versionFacts are the events about the role's versions.
func (c *roleChanged) versionFacts() []fact {
	var all []fact
	for i := range c.rec.Ring.Versions {
		v := &c.rec.Ring.Versions[i]
		var was *keyring.Version
		if c.old != nil {
			was = c.old.Ring.Get(v.N)
		}
		if was == nil {
			was = &keyring.Version{N: v.N}
			if !v.Activated && v.RevokedAt.IsZero() {
				all = append(all, c.staged(v))
			}
		} else if !v.Activated && v.RevokedAt.IsZero() && !v.Activate.IsZero() && !v.Activate.Equal(was.Activate) {
			all = append(all, c.staged(v)) // it has another date
		}
		all = append(all, c.versionChanges(was, v)...)
	}
	slices.SortStableFunc(all, func(a, b fact) int { return a.At.Compare(b.At) })
	return all
}

// versionChanges are the events that follow from what was marked in a version.
func (c *roleChanged) versionChanges(was, v *keyring.Version) []fact {
	var all []fact
	switch {
	case v.Activated && !was.Activated:
		all = append(all, c.activated(v, v.Activate, false))
	case !v.Reinstated.IsZero() && !v.Reinstated.Equal(was.Reinstated):
		all = append(all, c.activated(v, v.Reinstated, true))
	}
	if was.Reported.IsZero() && !v.Reported.IsZero() {
		st, _ := c.rec.Ring.Status(v.N, c.now)
		all = append(all, c.versionFact(tellsReported, v, v.Reported, map[string]any{
			"state": string(st.State), "valid_until": stamp(st.Until), "reason_code": string(v.Code),
		}))
	}
	if was.RevokedAt.IsZero() && !v.RevokedAt.IsZero() {
		data := map[string]any{"reason_code": string(v.Code)}
		if cur := c.rec.Ring.Current(c.now); cur != nil {
			data["current_version"], data["current_key_id"] = cur.N, cur.KeyID
		}
		all = append(all, c.versionFact(tellsRevoked, v, v.RevokedAt, data))
	}
	switch {
	case was.RetiredAt.IsZero() && !v.RetiredAt.IsZero():
		all = append(all, c.versionFact(tellsRetired, v, v.RetiredAt, map[string]any{
			"state": string(keyring.Retired), "reason": string(v.RetiredBy), "reason_code": string(v.Code),
		}))
	case !was.ExpiredSeen && v.ExpiredSeen && v.RetiredAt.IsZero() && v.RevokedAt.IsZero():
		all = append(all, c.versionFact(tellsRetired, v, v.Expires, map[string]any{
			"state": string(keyring.Expired), "reason": "", "reason_code": string(v.Code),
		}))
	}
	return append(all, c.warnings(was, v)...)
}

// warnings are the events of what is about to happen to a version.
func (c *roleChanged) warnings(was, v *keyring.Version) []fact {
	var all []fact
	ending := func(prev *keyring.Version, why string) {
		st, _ := c.rec.Ring.Status(prev.N, c.now)
		data := map[string]any{"valid_until": stamp(st.Until), "reason": why}
		if cur := c.rec.Ring.Current(c.now); cur != nil {
			data["current_version"], data["current_key_id"] = cur.N, cur.KeyID
		}
		all = append(all, c.versionFact(tellsEnding, prev, c.now, data))
	}
	if !v.Ending.IsZero() && !v.Ending.Equal(was.Ending) {
		ending(v, "in_use")
	}
	if prev := c.rec.Ring.PreviousOf(c.now); was.Unclaimed.IsZero() && !v.Unclaimed.IsZero() && prev != nil {
		ending(prev, "successor_unread")
	}
	if v.ExpiryTold != was.ExpiryTold && v.ExpiryTold > 0 {
		st, _ := c.rec.Ring.Status(v.N, c.now)
		all = append(all, c.versionFact(tellsExpiring, v, c.now, map[string]any{
			"expires_at": stamp(st.Until), "notice": int64(v.ExpiryTold / time.Second),
		}))
	}
	return all
}

func (c *roleChanged) staged(v *keyring.Version) fact {
	return c.versionFact(tellsStaged, v, c.now, map[string]any{"activates_at": stamp(v.Activate)})
}

func (c *roleChanged) activated(v *keyring.Version, at time.Time, again bool) fact {
	data := map[string]any{"previous_version": 0, "previous_key_id": "", "previous_valid_until": "", "automatic": v.Auto, "again": again}
	if prev := c.rec.Ring.PreviousOf(c.now); prev != nil && prev.N < v.N {
		st, _ := c.rec.Ring.Status(prev.N, c.now)
		data["previous_version"], data["previous_key_id"], data["previous_valid_until"] = prev.N, prev.KeyID, stamp(st.Until)
	}
	return c.versionFact(tellsActivated, v, at, data)
}

func (c *roleChanged) versionFact(eventType string, v *keyring.Version, at time.Time, data map[string]any) fact {
	data["version"], data["key_id"] = v.N, v.KeyID
	f := factAbout(c.rec, eventType, at, data)
	if at.Before(c.now) { // whoever comes across it has not done it
		f.by(teller{cause: byClock})
	} else {
		f.by(c.by)
	}
	return f
}

func (c *roleChanged) roleFact(eventType string, data map[string]any) fact {
	f := factAbout(c.rec, eventType, c.now, data)
	f.by(c.by)
	return f
}

// factAbout is an event about a role.
func factAbout(rec *roleRecord, eventType string, at time.Time, data map[string]any) fact {
	data["role"], data["role_id"], data["owner"] = rec.Name, rec.ID, rec.Policy.Owner
	f := fact{Type: eventType, At: at, Data: data, Metadata: rec.Policy.Metadata}
	if text := rec.Policy.Description; text != "" {
		f.Text = map[string]string{"description": text}
	}
	return f
}

// teller is who has caused what is told, and why.
type teller struct{ cause, entityID, display, reason string }

// byClock is the cause of what the time alone has done.
const byClock = "periodic"

// by adds who has caused it, and why.
func (f *fact) by(a teller) {
	f.Data["cause"] = a.cause
	if a.entityID != "" || a.display != "" {
		f.Actor = map[string]string{"entity_id": a.entityID, "display_name": a.display}
	}
	f.addText("reason_text", a.reason)
}

func (f *fact) addText(name, text string) {
	if text == "" {
		return
	}
	if f.Text == nil {
		f.Text = map[string]string{}
	}
	f.Text[name] = text
}

// fit keeps the event within bounds: what an endpoint gets only if it says so goes
// first, and it says that something is missing.
func (f *fact) fit() {
	size := func() int {
		data, err := json.Marshal(f)
		if err != nil {
			return maxFact + 1
		}
		return len(data)
	}
	if size() <= maxFact {
		return
	}
	f.Metadata, f.Data["shortened"] = nil, true
	if size() <= maxFact {
		return
	}
	for name, text := range f.Text {
		f.Text[name] = shorten(text, maxChangeTold)
	}
	if size() > maxFact {
		f.Text = nil
	}
}

const maxChangeTold = 256

// keyFacts are the events that the change of a dynamic key's record tells, where
// somebody decided about it; st is what the key is then.
func keyFacts(old, rec *keyRecord, role *roleRecord, st keyring.Status, by teller) []fact {
	if rec == nil || !rec.Dynamic {
		return nil
	}
	var was keyRecord
	if old != nil {
		was = *old
	}
	var all []fact
	add := func(eventType string, at time.Time, data map[string]any) {
		data["version"], data["key_id"], data["reason_code"] = rec.Version, rec.ID, string(rec.Code)
		f := factAbout(role, eventType, at, data)
		f.by(by)
		all = append(all, f)
	}
	if was.Reported.IsZero() && !rec.Reported.IsZero() {
		add(tellsReported, rec.Reported, map[string]any{"state": string(st.State), "valid_until": stamp(st.Until)})
	}
	if was.RevokedAt.IsZero() && !rec.RevokedAt.IsZero() {
		add(tellsRevoked, rec.RevokedAt, map[string]any{})
	}
	return all
}
