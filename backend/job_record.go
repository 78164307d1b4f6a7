// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"strings"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// The actions of a bulk job.
const (
	bulkRotate  = "rotate"
	bulkRevoke  = "revoke"
	bulkDisable = "disable"
	bulkEnable  = "enable"
)

// The states of a bulk job.
const (
	jobRunning = "running"
	jobDone    = "done"
	jobStopped = "stopped"
)

// selector says which roles a job means: those that all of its set parts
// match.
type selector struct {
	Owner    string            `json:"owner,omitempty"`
	Prefix   string            `json:"name_prefix,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Scope    string            `json:"scope,omitempty"`
	IssuedTo string            `json:"issued_to,omitempty"` // an entity id or display name
	Roles    []string          `json:"roles,omitempty"`
}

func (s *selector) empty() bool {
	return s.Owner == "" && s.Prefix == "" && len(s.Metadata) == 0 && s.Scope == "" && s.IssuedTo == "" && len(s.Roles) == 0
}

// matches reports whether the role is meant. Whom keys were issued to is asked
// of each key.
func (s *selector) matches(rec *roleRecord) bool {
	if s.Owner != "" && rec.Policy.Owner != s.Owner {
		return false
	}
	if !strings.HasPrefix(rec.Name, s.Prefix) {
		return false
	}
	for k, v := range s.Metadata {
		if have, ok := rec.Policy.Metadata[k]; !ok || have != v {
			return false
		}
	}
	if s.Scope != "" && !policy.ScopesCover(rec.Policy.Scopes, s.Scope) {
		return false
	}
	return s.IssuedTo == "" || rec.Type == policy.Dynamic
}

// jobInsideSchema is the layout of a job's record while that has a place inside a
// role, and the newest that this build reads. Older builds refuse such a record:
// they would lose the place.
const jobInsideSchema = 2

// jobRecord is a bulk job: what it does, to what, and how far it has come.
type jobRecord struct {
	Schema   int             `json:"schema"`
	ID       string          `json:"id"`
	Action   string          `json:"action"`
	Select   selector        `json:"selector"`
	Reason   string          `json:"reason,omitempty"`
	Code     keyring.Reason  `json:"reason_code,omitempty"`
	Grace    *policy.Seconds `json:"grace_period,omitempty"`
	Replace  bool            `json:"rotate"`
	Pace     int             `json:"pace"` // actions per second; 0 is no limit
	Created  time.Time       `json:"created"`
	EntityID string          `json:"entity_id,omitempty"`
	Display  string          `json:"display_name,omitempty"`

	// By which a repetition of the request is known.
	RequestID string `json:"request_id,omitempty"`
	Caller    string `json:"caller,omitempty"`
	Params    string `json:"params,omitempty"` // digest

	State string `json:"state"`
	After string `json:"after,omitempty"` // the last role that is done with
	// Inside is how far the job has come in the role that follows After, where
	// that is more than it does at a time.
	Inside   *jobPlace `json:"inside,omitempty"`
	Seen     int       `json:"seen"`
	Acted    int       `json:"acted"`
	Keys     int       `json:"keys,omitempty"` // dynamic keys acted on
	Failed   int       `json:"failed"`
	Failures []jobFail `json:"failures,omitempty"`
	Finished time.Time `json:"finished,omitzero"`
}

type jobFail struct {
	Role  string `json:"role"`
	Error string `json:"error"`
}

// jobPlace is a place among the keys of a role.
type jobPlace struct {
	RoleID string `json:"role_id"`         // another role of the name begins anew
	After  string `json:"after,omitempty"` // the last key that is done with
	Failed int    `json:"failed,omitempty"`
	Killed int    `json:"killed,omitempty"`
	Error  string `json:"error,omitempty"` // of the last that failed
}

func (j *jobRecord) schema() int { return j.Schema }

func (j *jobRecord) newest() int { return jobInsideSchema }

// actID is the request id, and the caller, of what the job does to roles.
func (j *jobRecord) actID() string { return "bulk:" + j.ID }

// at reports whether both have come to the same place.
func (j *jobRecord) at(other *jobRecord) bool {
	inside, there := jobPlace{}, jobPlace{}
	if j.Inside != nil {
		inside = *j.Inside
	}
	if other.Inside != nil {
		there = *other.Inside
	}
	return j.After == other.After && inside.RoleID == there.RoleID && inside.After == there.After
}

// fit makes the record fit to be written: its layout is the oldest that holds
// it, and one that has ended has no place to go on from.
func (j *jobRecord) fit() {
	if j.State != jobRunning {
		j.Inside = nil
	}
	j.Schema = recordSchema
	if j.Inside != nil {
		j.Schema = jobInsideSchema
	}
}

// kills reports whether the job ends keys: then it goes before those that do not.
func (j *jobRecord) kills() bool { return j.Action == bulkRevoke || j.Action == bulkDisable }
