// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

const (
	outboxPrefix    = "outbox/"
	endpointsPath   = "endpoints"
	endpointsPrefix = "endpoint/"
)

// outboxPath is where what a commit of that minute tells is kept.
func outboxPath(minute time.Time, commit string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(commit)) // a hash.Hash never fails
	return outboxMinute(minute) + fmt.Sprintf("%02x/", h.Sum32()%dueShards) + commit
}

func outboxDay(day time.Time) string { return outboxPrefix + day.UTC().Format(dayFormat) + "/" }

func outboxMinute(minute time.Time) string {
	return outboxDay(minute) + minute.UTC().Format("1504") + "/"
}

func endpointPath(id string) string { return endpointsPrefix + id }

// proofKind is by which record a commit is known to have happened.
type proofKind string

const (
	proofRole proofKind = "role" // the role's, its copy, or its archive, names the commit
	proofGone proofKind = "gone" // a deletion: no role lives that has the role_id
	proofKey  proofKind = "key"  // a dynamic key's own
	proofSelf proofKind = "self" // its own Put is the commit
)

// outboxRecord is what one commit tells, and who is still to be told.
type outboxRecord struct {
	Schema int       `json:"schema"`
	Commit string    `json:"commit"`
	At     time.Time `json:"at"` // of the Put
	Proof  proofKind `json:"proof"`
	Role   string    `json:"role,omitempty"`
	RoleID string    `json:"role_id,omitempty"`
	KeyID  string    `json:"key_id,omitempty"`
	Facts  []fact    `json:"facts"`
	// Mark: the entry stays until its day is over, so that nothing of the kind is told
	// twice that day.
	Mark bool `json:"mark,omitempty"`
}

func (r *outboxRecord) schema() int { return r.Schema }

// fact is one event, as it is kept until all who wanted it have it. It holds no key.
type fact struct {
	Type string    `json:"type"`
	At   time.Time `json:"at"` // when it was true
	// Seq grows from event to event of one role; Tag is random, and tells what a
	// restored storage numbers again from what it had numbered before.
	Seq int64  `json:"seq"`
	Tag string `json:"tag"`
	// To are the ids of the endpoints that are still to be told.
	To   []string       `json:"to,omitempty"`
	Data map[string]any `json:"data"`
	// What an endpoint gets only if it says so.
	Metadata map[string]string `json:"metadata,omitempty"`
	Actor    map[string]string `json:"actor,omitempty"`
	Text     map[string]string `json:"text,omitempty"`

	not string // the endpoint that is not to be told
}

// telling is what a commit is about to tell: it is in the outbox before the commit.
type telling struct {
	path string
	rec  *outboxRecord
	// stored: the outbox has it. Else the record that is committed has it, or only
	// this node's memory.
	stored bool
	maybe  bool // it may have it all the same
	// kept: the record that is committed holds it.
	kept bool
	// settled: somebody was told what came of the commit.
	settled bool
}

// endpointsRecord is all endpoints: there are few, and each commit asks for them.
type endpointsRecord struct {
	Schema    int               `json:"schema"`
	Endpoints []*endpointRecord `json:"endpoints,omitempty"`
	// Sweep: an endpoint was deleted, and the outbox may still name it.
	Sweep bool `json:"sweep,omitempty"`
}

func (r *endpointsRecord) schema() int { return r.Schema }

// endpointRecord is where events are sent, as an operator wrote it.
type endpointRecord struct {
	ID      string    `json:"id"` // random, never used again
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// Revised is when its configuration was last written.
	Revised    time.Time         `json:"revised"`
	URL        string            `json:"url"`
	Types      []string          `json:"types,omitempty"`
	NamePrefix string            `json:"name_prefix,omitempty"`
	Format     string            `json:"format,omitempty"`
	Template   string            `json:"template,omitempty"`
	Include    []string          `json:"include,omitempty"`
	Digest     policy.Seconds    `json:"digest,omitempty"`
	Pace       float64           `json:"pace,omitempty"`
	CA         string            `json:"ca,omitempty"`
	Disabled   bool              `json:"disabled,omitempty"`
	Secrets    map[string]string `json:"secrets,omitempty"`
	// Signing are the secrets that deliveries are signed with, the newest first.
	Signing []signingSecret `json:"signing"`
}

// signingSecret signs until then; zero is for as long as it is the newest.
type signingSecret struct {
	Key   string    `json:"key"` // as the receiver has it
	Until time.Time `json:"until,omitzero"`
}

// endpointState is how deliveries to an endpoint go. It decides nothing but when the
// next one is tried.
type endpointState struct {
	Schema int    `json:"schema"`
	ID     string `json:"id"`
	// LastSuccess and LastAttempt are of deliveries; LastError is the class of the last
	// failure, empty after a success.
	LastSuccess time.Time `json:"last_success,omitzero"`
	LastAttempt time.Time `json:"last_attempt,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
	LastStatus  int       `json:"last_status,omitempty"`
	// Since is when the outage began; zero: there is none. Lasted is how long of it this
	// engine was there to see.
	Since    time.Time     `json:"since,omitzero"`
	Lasted   time.Duration `json:"lasted,omitempty"`
	Attempts int           `json:"attempts,omitempty"`
	Next     time.Time     `json:"next,omitzero"`
	// Gone is how long of that it has answered that it is gone.
	Gone time.Duration `json:"gone,omitempty"`
	Told bool          `json:"told,omitempty"` // the other endpoints know
	// Stopped is when the engine gave the endpoint up.
	Stopped time.Time `json:"stopped,omitzero"`
	// Dropped counts events that were given up, and why.
	Dropped map[string]int64 `json:"dropped,omitempty"`
	// Ahead is by how much the receiver's clock was ahead of this node's.
	Ahead time.Duration `json:"ahead,omitempty"`
}

func (s *endpointState) schema() int { return s.Schema }

// Types of events. docs/events.md says what each holds.
const (
	tellsStaged    = "key.staged"
	tellsActivated = "key.activated"
	tellsEnding    = "key.ending"
	tellsRetired   = "key.retired"
	tellsRevoked   = "key.revoked"
	tellsExpiring  = "key.expiring"
	tellsReported  = "key.reported"
	tellsEndedUsed = "key.ended_used"
	tellsCreated   = "role.created"
	tellsUpdated   = "role.updated"
	tellsDeleted   = "role.deleted"
	tellsRestored  = "role.restored"
	tellsOverdue   = "rotation.overdue"
	tellsFailing   = "rotation.failing"
	tellsRecovered = "rotation.recovered"
	tellsEndpoint  = "endpoint.failing"
	tellsTest      = "test" // asked for by events/<name>/test, of no endpoint's types
)

// wants reports whether the endpoint wants events of that type about that role, or,
// where the role is empty, about none.
func (e *endpointRecord) wants(eventType, role string) bool {
	if e.Disabled || role != "" && !strings.HasPrefix(role, e.NamePrefix) {
		return false
	}
	return slices.ContainsFunc(e.Types, func(pattern string) bool { return typeMatches(pattern, eventType) })
}

// typeMatches reports whether a pattern names the type: whole, or with a star as its
// last part.
func typeMatches(pattern, eventType string) bool {
	if rest, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(eventType, rest)
	}
	return pattern == eventType
}

// listeners are the endpoints that exist, from memory where this node knows them, and
// as they were last where they cannot be read: no commit waits for that. Where a newer
// build wrote them, or they are damaged, nothing is told: no key waits for that either.
func (b *backend) listeners(ctx context.Context, s logical.Storage) ([]*endpointRecord, error) {
	rec, err := b.endpoints.get(ctx, s)
	if err != nil {
		if rec = b.endpoints.last(); rec == nil && (errors.Is(err, errSchema) || errors.Is(err, errDecoding)) {
			return nil, nil
		} else if rec == nil || mustForward(err) {
			return nil, err
		}
	}
	return rec.Endpoints, nil
}

// heard reports whether some endpoint wants events of that type about the role, as far
// as this node knows.
func (b *backend) heard(eventType, role string) bool {
	rec := b.endpoints.last()
	return rec != nil && slices.ContainsFunc(rec.Endpoints, func(e *endpointRecord) bool { return e.wants(eventType, role) })
}
