// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// What is stored. A record is never a response: replies are built from
// allow-lists (responses.go and the path files).

// recordSchema is the newest layout this build writes and the newest it reads,
// but for records that say otherwise (newest). A record of a newer one is refused,
// never overwritten.
const recordSchema = 1

// roleRecord is everything that decides about a role. One record is one atomic
// commit: every transition of a role is exactly one Put of it.
type roleRecord struct {
	Schema  int       `json:"schema"`
	Name    string    `json:"name"`
	ID      string    `json:"role_id"`
	Type    string    `json:"type"`
	Created time.Time `json:"created"`
	// Committed is the instant of the last commit: no later operation takes
	// place before it.
	Committed time.Time `json:"committed"`
	// Seq counts the commits.
	Seq int64 `json:"seq"`

	Policy policy.Policy `json:"policy"`
	Ring   keyring.Ring  `json:"ring"`
	// Next is the next planned activation after the pending version's; zero
	// without automatic rotation. It is derived from Plan.
	Next time.Time `json:"next,omitzero"`
	// Plan is shared, and never changed in place.
	Plan *plan `json:"plan,omitempty"`
	// Owed: a version was killed whose replacement could not be made with it. The
	// periodic function makes it.
	Owed bool `json:"owed,omitempty"`
	// Due is the minute under which the calendar holds the role; zero if it
	// holds it nowhere.
	Due time.Time `json:"due,omitzero"`
	// Promise is what readers were told before a policy change shortened it.
	Promise promise `json:"promise,omitzero"`
	// LeaseTTL is the longest lease ttl of a dynamic role that was in force
	// since the rotation before.
	LeaseTTL policy.Seconds `json:"lease_ttl,omitempty"`
	// LeaseUntil is until when leases of a ttl that was shortened may be out.
	LeaseUntil time.Time `json:"lease_until,omitzero"`
	// TTLSeen is the ttl of a dynamic role at its last commit.
	TTLSeen policy.Seconds `json:"ttl_seen,omitempty"`

	History  []historyEntry   `json:"history,omitempty"`
	Archived int              `json:"archived,omitempty"` // pages in archive/
	Noise    map[string]noise `json:"noise,omitempty"`
	Requests []replay         `json:"requests,omitempty"`

	// Told is the sequence of the last event, Commits the ids of the last commits that
	// told some, the newest last. Untold is what the outbox could not take with a kill.
	Told    int64    `json:"told,omitempty"`
	Commits []string `json:"commits,omitempty"`
	Untold  []fact   `json:"untold,omitempty"`

	// Moved marks what a restoration wrote, once roles of the mount were renamed: the
	// record counts only while moved/ says so. It is never changed in place.
	Moved *move `json:"moved,omitempty"`

	// Deleted marks the copy of a role that waits for its restoration, and the record
	// of a role that is to become one (role_unmoved.go).
	Deleted   time.Time `json:"deleted,omitzero"`
	DeletedBy string    `json:"deleted_by,omitempty"`
	// DeletedCode is the reason code of the deletion.
	DeletedCode keyring.Reason `json:"deleted_code,omitempty"`
	PurgeAt     time.Time      `json:"purge_at,omitzero"`
}

// move is the restoration that brought a role to the name that it has.
type move struct {
	Mark string `json:"mark"`
	// From is what the role was called before its last rename, and At when that was.
	From string    `json:"from,omitempty"`
	At   time.Time `json:"at,omitzero"`
}

// plan is what the automatic rotation counts from. The next planned activation
// follows from it and from the versions, so it is never changed by itself: every
// transition derives it anew. An older build drops the plan and leaves the
// activation that it wrote.
type plan struct {
	// Slot is the next planned activation if no version is pending.
	Slot time.Time `json:"slot"`
	// Version became current at Since, which is what the slot was counted from.
	Version int       `json:"version,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	// Before is the last version that was there when the cadence began: what the
	// automatic rotation made by another one is in no slot of this.
	Before int `json:"before,omitempty"`
}

// promise says that some reader may have been told to come back only after TTL
// seconds, until the time given.
type promise struct {
	TTL   policy.Seconds `json:"ttl"`
	Until time.Time      `json:"until"`
}

// historyEntry is one transition of a role: what, when, by whom, why. It never
// holds a key.
type historyEntry struct {
	Time      time.Time              `json:"time"`
	Kind      string                 `json:"kind"`
	Version   int                    `json:"version,omitempty"`
	KeyID     string                 `json:"key_id,omitempty"`
	Cause     string                 `json:"cause"`
	EntityID  string                 `json:"entity_id,omitempty"`
	Display   string                 `json:"display_name,omitempty"`
	RequestID string                 `json:"request_id,omitempty"`
	Reason    string                 `json:"reason,omitempty"`
	Code      keyring.Reason         `json:"reason_code,omitempty"`
	Until     time.Time              `json:"until,omitzero"`
	Fields    map[string]fieldChange `json:"fields,omitempty"`
}

// fieldChange is a policy field before and after an update.
type fieldChange struct {
	Old any `json:"old"`
	New any `json:"new"`
}

// noise is something that may happen often and that only its extent matters of.
type noise struct {
	Count int64     `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// replay is the answer to an action that named a request id.
type replay struct {
	ID     string          `json:"id"`
	Op     string          `json:"op"`
	Caller string          `json:"caller"`
	Params string          `json:"params"` // digest
	Time   time.Time       `json:"time"`
	Result json.RawMessage `json:"result"`
}

// keyRecord is where a key id points. For a key of a static role the role
// record decides alone; for a key of a dynamic role this record is itself the
// commit for the key, and the role record decides what holds for all of them.
type keyRecord struct {
	Schema  int    `json:"schema"`
	ID      string `json:"id"`
	Role    string `json:"role"`
	RoleID  string `json:"role_id"`
	Version int    `json:"version"`
	Digest  string `json:"digest"`
	// Created is when the record of a static role's key was first written: what
	// no commit points at is removed only when it is older than any call.
	Created time.Time `json:"created,omitzero"`
	// End is how a version ended that the role record no longer holds, or whose role
	// is gone.
	End *keyEnd `json:"end,omitempty"`
	// Weak: an imported key that is too short for what is otherwise looked up.
	Weak bool `json:"weak,omitempty"`

	// Dynamic keys only.
	Dynamic bool      `json:"dynamic,omitempty"`
	Issued  time.Time `json:"issued,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
	// ExpiredSeen marks an expiry that the end of the lease came across.
	ExpiredSeen bool           `json:"expired_seen,omitempty"`
	RevokedAt   time.Time      `json:"revoked_at,omitzero"`
	Revoked     string         `json:"revoked,omitempty"` // why
	Code        keyring.Reason `json:"reason_code,omitempty"`
	Scopes      []string       `json:"scopes,omitempty"`
	Narrowed    bool           `json:"narrowed,omitempty"` // Scopes holds even if empty
	TTL         policy.Seconds `json:"ttl,omitempty"`      // asked for at issue; 0: the role's
	Label       string         `json:"label,omitempty"`
	EntityID    string         `json:"entity_id,omitempty"`
	Display     string         `json:"display_name,omitempty"`
	Reported    time.Time      `json:"reported,omitzero"`
	Cap         time.Time      `json:"cap,omitzero"`
	// LeakRotated: the one replacement that a report may cause has happened.
	LeakRotated bool `json:"leak_rotated,omitempty"`
	// Commits are the ids of the commits of a dynamic key that told events.
	Commits []string `json:"commits,omitempty"`
}

type keyEnd struct {
	State  keyring.State  `json:"state"`
	Reason keyring.Reason `json:"reason,omitempty"`
	At     time.Time      `json:"at"`
}

// secretRecord is the plaintext of one live version of a static role.
type secretRecord struct {
	Schema int    `json:"schema"`
	Key    string `json:"key"`
}

// digestRecord holds the secrets under which keys are digested, by number.
type digestRecord struct {
	Schema  int            `json:"schema"`
	Current int            `json:"current"`
	Secrets map[int][]byte `json:"secrets"`
	Rotated time.Time      `json:"rotated"`

	once  sync.Once
	ready map[int]*keyformat.Secret
}

// secret is the digest secret with that number, ready for use; nil if there is
// none. The record's secrets must not change any more.
func (r *digestRecord) secret(n int) *keyformat.Secret {
	r.once.Do(func() {
		r.ready = make(map[int]*keyformat.Secret, len(r.Secrets))
		for n, secret := range r.Secrets {
			r.ready[n] = keyformat.NewSecret(n, secret)
		}
	})
	return r.ready[n]
}

// markRecord is how far the periodic function has come.
type markRecord struct {
	Schema int `json:"schema"`
	// High is the latest instant that a tick has seen: time does not go back
	// before it, a wrong clock apart.
	High time.Time `json:"high"`
	// Cursor is the last minute of the calendar that is done with.
	Cursor time.Time `json:"cursor"`
	// By is the random id of the instance of the engine that wrote this.
	By string `json:"by,omitempty"`
}

// clone copies the record deeply enough for a transition to change anything.
func (r *roleRecord) clone() *roleRecord {
	c := *r
	c.Ring = r.Ring.Clone()
	c.History = append([]historyEntry(nil), r.History...)
	c.Requests = append([]replay(nil), r.Requests...)
	c.Commits = append([]string(nil), r.Commits...)
	if r.Noise != nil {
		c.Noise = make(map[string]noise, len(r.Noise))
		for k, v := range r.Noise {
			c.Noise[k] = v
		}
	}
	return &c
}

// newUUID is a random UUID (RFC 9562, version 4).
func newUUID(random io.Reader) (string, error) {
	var u [16]byte
	if _, err := io.ReadFull(random, u[:]); err != nil {
		return "", fmt.Errorf("reading randomness: %w", err)
	}
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:]), nil
}

// archivePage is older history of a role.
type archivePage struct {
	Schema  int            `json:"schema"`
	RoleID  string         `json:"role_id"`
	Role    string         `json:"role"`
	Page    int            `json:"page"`
	Written time.Time      `json:"written"`
	Entries []historyEntry `json:"entries"`
	// Commits are ids of commits that the record no longer lists.
	Commits []string `json:"commits,omitempty"`
}

func (p *archivePage) schema() int { return p.Schema }

// deferredLeak is a report that waits for an operator.
type deferredLeak struct {
	Schema int       `json:"schema"`
	KeyID  string    `json:"key_id"`
	Role   string    `json:"role"`
	RoleID string    `json:"role_id"`
	At     time.Time `json:"at"`
	Seen   string    `json:"seen"`
}

func (d *deferredLeak) schema() int { return d.Schema }

func (r *roleRecord) schema() int { return r.Schema }

// stub reports whether there is nothing in the copy to restore.
func (r *roleRecord) stub() bool { return r.Ring.Last == 0 }

func (*roleRecord) newest() int { return markedSchema }

// hiddenAt reports whether the record is that of a deleted role where living ones stand.
func (r *roleRecord) hiddenAt(path string) bool {
	return r.marked() && strings.HasPrefix(path, rolePrefix)
}

// marked reports whether the record is that of a deleted role.
func (r *roleRecord) marked() bool { return !r.Deleted.IsZero() }

// shownRole is a role's record that is read whether or not it is marked as deleted.
type shownRole struct{ roleRecord }

func (*shownRole) hiddenAt(string) bool { return false }

// living is the record, nil where the role is deleted.
func (r *shownRole) living() *roleRecord {
	if r == nil || r.marked() {
		return nil
	}
	return &r.roleRecord
}

func (r *keyRecord) schema() int { return r.Schema }

func (r *secretRecord) schema() int { return r.Schema }

func (r *digestRecord) schema() int { return r.Schema }

func (r *markRecord) schema() int { return r.Schema }
