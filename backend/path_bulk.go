// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const (
	defaultBulkPace = 20
	maxBulkPace     = 10000
	// maxSelector is more than what a role or a key can have there.
	maxSelector = 64 << 10
	// dryRunBudget is how long a dry run looks for roles before it answers with
	// what it has found.
	dryRunBudget = 3 * time.Second
	dryRunShown  = 1000
)

// jobFields describe a job in answers.
func jobFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"job":         {Type: framework.TypeString, Description: "The job's id; empty for a dry run.", Required: true},
		"action":      {Type: framework.TypeString, Description: "What is done.", Required: true},
		"state":       {Type: framework.TypeString, Description: "dry_run, running, done or stopped.", Required: true},
		"selector":    {Type: framework.TypeMap, Description: "What is meant."},
		"reason":      {Type: framework.TypeString, Description: "Why."},
		"reason_code": {Type: framework.TypeString, Description: "The reason code; empty where none was given."},
		"created":     {Type: framework.TypeString, Description: "When the job was made (RFC 3339)."},
		"finished":    {Type: framework.TypeString, Description: "When it ended (RFC 3339); empty before."},
		"after":       {Type: framework.TypeString, Description: "The last role that is done with, by name."},
		"seen":        {Type: framework.TypeInt, Description: "Roles looked at."},
		"acted":       {Type: framework.TypeInt, Description: "Roles acted on."},
		"keys":        {Type: framework.TypeInt, Description: "Keys of dynamic roles acted on."},
		"failed":      {Type: framework.TypeInt, Description: "Roles where the action failed."},
		"failures":    {Type: framework.TypeSlice, Description: "The last of these, each with role and error."},
		"roles":       {Type: framework.TypeStringSlice, Description: "Dry run: the roles that would be acted on, at most 1000."},
		"matched":     {Type: framework.TypeInt, Description: "Dry run: how many were found."},
		"complete":    {Type: framework.TypeBool, Description: "Dry run: every role was looked at. If not, there may be more."},
		"replayed":    replayFields()["replayed"], "replayed_at": replayFields()["replayed_at"],
	}
}

func (b *backend) pathsBulk() []*framework.Path {
	jobs := listFields("By job id: action, state (unreadable where a newer version of the plugin made the job), created, acted and failed.")
	return []*framework.Path{
		b.path(pathSpec{
			pattern: "bulk/?", suffix: "bulk-jobs", lists: "Job",
			synopsis: "Do the same to many roles, as a job.",
			fields: fieldsOf(pageFieldSet(true), fieldSet{
				"action":       {about: "What is done.", choices: bulkActions, required: true},
				"dry_run":      {kind: kindSwitch, def: true, about: "Only list what would be touched. Set it to false to do it."},
				"owner":        {empty: emptyNever, about: "Roles of this owner."},
				"name_prefix":  {empty: emptyNever, about: "Roles whose names begin so."},
				"metadata":     {kind: kindMap, empty: emptyNever, about: "Roles with all of this metadata."},
				"scope":        {empty: emptyNever, about: "Roles whose scopes cover this one."},
				"issued_to":    {empty: emptyNever, about: "With revoke: the keys of dynamic roles that were issued to this entity id or display name."},
				"roles":        {kind: kindList, empty: emptyNever, about: "These roles, at most 1000. Each has to exist."},
				"reason":       reasonField("Why; kept in the roles' histories.", true),
				"reason_code":  codeField("What the reason is, for the keys that the job ends."),
				"grace_period": {kind: kindDuration, about: "With rotate: how long the previous versions stay valid. Default: each role's own."},
				"rotate":       {kind: kindSwitch, def: true, about: "With revoke: replace what is killed."},
				"request_id":   actionFields(true)["request_id"],
				"pace":         {kind: kindInteger, def: defaultBulkPace, about: "Actions per second; 0 is no limit. An action is a role, or up to 100 keys of one."},
			}),
			ops: map[logical.Operation]operation{
				logical.UpdateOperation: {
					do: b.bulk, writes: true, verb: "start", suffix: "bulk-job", told: "The job, or what it would touch.", answer: jobFields(),
				},
				logical.ListOperation: {do: b.listJobs, summary: "The jobs.", told: "The job ids.", answer: jobs},
			},
			help: `
Rotates, revokes, disables or enables the roles that all given selectors match.
By default nothing is done: the answer lists what would be touched. With
dry_run=false a job is made, which the worker does role by role, at the given
pace, also after a restart. Jobs that end keys go before others, which get one
action of eight meanwhile.

A selector that is given must say something: an empty one is refused, and so are
names of roles that do not exist.

Of the jobs that have ended the oldest make room for new ones, beyond 100 jobs in
all. At most 100 jobs that end no keys run at a time.`,
		}),
		b.path(pathSpec{
			pattern: "bulk/(?P<job>[^/]+)", suffix: "bulk-job",
			synopsis: "Read or stop a job.",
			fields:   fieldSet{"job": {about: "The job's id."}},
			ops: map[logical.Operation]operation{
				logical.ReadOperation: {do: b.readJob, summary: "How far a job has come.", told: "The job.", answer: jobFields()},
				logical.DeleteOperation: {
					do: b.stopJob, writes: true, verb: "stop", summary: "Stop a job; what it did stays done.",
					none: "Stopped, forgotten, or there was no such job.",
				},
			},
			help: "Shows how far a job has come. Deleting a running job stops it: only the role in hand is still done. Deleting one that has ended forgets it.",
		}),
	}
}

var bulkActions = []string{bulkRotate, bulkRevoke, bulkDisable, bulkEnable}

// bulkRequest is what bulk says.
type bulkRequest struct {
	job    *jobRecord
	params []string // digests of it
	dryRun bool
}

// readBulk reads and checks what a job is to do.
func readBulk(req *logical.Request, in *input) (*bulkRequest, error) {
	by, err := readActor(req, in)
	if err != nil {
		return nil, err
	}
	if !in.given("action") {
		return nil, refusal.New("action", nil, "is missing: it must be one of "+strings.Join(bulkActions, ", "), "choose one")
	}
	pace := in.integer("pace")
	if pace < 0 || pace > maxBulkPace {
		return nil, refusal.New("pace", pace, fmt.Sprintf("must be from 0 to %d", maxBulkPace), "choose another")
	}
	params := in.digests()
	r := &bulkRequest{params: params, dryRun: in.flag("dry_run"), job: &jobRecord{
		Schema: recordSchema, Action: in.text("action"), Reason: by.reason, Code: by.code, Grace: graceAsked(in), Replace: in.flag("rotate"),
		Pace: int(pace), EntityID: by.entityID, Display: by.display, State: jobRunning,
		RequestID: by.requestID, Caller: by.caller, Params: params[0],
		Select: selector{
			Owner: in.text("owner"), Prefix: in.text("name_prefix"), Metadata: in.pairs("metadata"),
			Scope: in.text("scope"), IssuedTo: in.text("issued_to"), Roles: in.list("roles"),
		},
	}}
	if err := checkSelector(&r.job.Select, r.job.Action); err != nil {
		return nil, err
	}
	switch grace := r.job.Grace; {
	case grace == nil:
	case r.job.Action != bulkRotate:
		return nil, refusal.New("grace_period", int64(*grace), "goes with rotate only", "leave it out")
	case grace.Duration() > maxGraceWithoutRotation:
		return nil, refusal.New("grace_period", int64(*grace), "is more than 400 days", "choose a shorter one")
	}
	return r, nil
}

// checkSelector refuses what selects nothing, everything by accident, or what no
// role can have.
func checkSelector(s *selector, action string) error {
	switch {
	case s.empty():
		return refusal.New("name_prefix", nil, "nothing selects the roles", "give owner, name_prefix, metadata, scope, issued_to or roles")
	case s.IssuedTo != "" && action != bulkRevoke:
		return refusal.New("issued_to", s.IssuedTo, "goes with revoke only: the other actions mean whole roles", "leave it out, or revoke")
	case s.Prefix != "" && !validName(s.Prefix):
		return refusal.New("name_prefix", s.Prefix, "no role's name begins so", "correct it")
	case len(s.Roles) > maxBatchItems:
		return refusal.New("roles", len(s.Roles), "names more than 1000 roles", "select them by owner, name_prefix or metadata, or make several jobs")
	}
	for _, name := range s.Roles {
		if !validName(name) {
			return refusal.New("roles", name, "is not the name of a role", "correct it")
		}
	}
	if s.Scope != "" {
		if err := policy.CheckScope("scope", s.Scope); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(s.Metadata) {
		if strings.TrimSpace(name) == "" {
			return refusal.New("metadata", name, "a name is empty", "name every value")
		}
		if strings.TrimSpace(s.Metadata[name]) == "" {
			return refusal.New("metadata", name, "the value of this name is empty", "leave the name out, or give its value; an unset variable looks like this")
		}
	}
	for _, part := range []struct{ field, text string }{{"issued_to", s.IssuedTo}, {"metadata", fmt.Sprint(s.Metadata)}, {"owner", s.Owner}} {
		switch {
		case len(part.text) > maxSelector:
			return refusal.New(part.field, nil, fmt.Sprintf("has more than %d bytes", maxSelector), "select by something else")
		case keyformat.Redact(part.text) != part.text:
			return refusal.New(part.field, nil, "holds an API key", "select by something else")
		}
	}
	return nil
}

func (b *backend) bulk(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	r, err := readBulk(req, in)
	if err != nil {
		return nil, err
	}
	if r.dryRun {
		return b.dryRun(ctx, req.Storage, r.job)
	}
	job, first, err := b.makeJob(ctx, req.Storage, r.job, r.params)
	if err != nil {
		return nil, err
	}
	data := job.view()
	if first {
		return answer(data), nil
	}
	data["replayed"], data["replayed_at"] = true, stamp(job.Created)
	return answer(data), nil
}

// dryRun lists the roles that the job would act on.
func (b *backend) dryRun(ctx context.Context, s logical.Storage, job *jobRecord) (*logical.Response, error) {
	if err := b.unknownRoles(ctx, s, job.Select.Roles); err != nil {
		return nil, err
	}
	names := slices.Clone(job.Select.Roles)
	if len(names) == 0 {
		var err error
		if names, err = list(ctx, s, rolePrefix); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	start := b.clock.Now()
	shown, matched, complete := []string{}, 0, true
	for _, name := range names {
		if b.clock.Now().Sub(start) > dryRunBudget {
			complete = false
			break
		}
		if !strings.HasPrefix(name, job.Select.Prefix) {
			continue
		}
		rec, err := b.storedRole(ctx, s, name)
		if err != nil {
			return nil, err
		}
		if rec == nil || !job.Select.matches(rec) {
			continue
		}
		if matched++; len(shown) < dryRunShown {
			shown = append(shown, name)
		}
	}
	return answer(map[string]any{
		"job": "", "action": job.Action, "state": "dry_run", "roles": shown, "matched": matched, "complete": complete,
	}), nil
}

func (j *jobRecord) view() map[string]any {
	failures := make([]any, len(j.Failures))
	for i, f := range j.Failures {
		failures[i] = map[string]any{"role": f.Role, "error": f.Error}
	}
	sel := map[string]any{}
	for name, text := range map[string]string{"owner": j.Select.Owner, "name_prefix": j.Select.Prefix, "scope": j.Select.Scope, "issued_to": j.Select.IssuedTo} {
		if text != "" {
			sel[name] = shownSelector(text)
		}
	}
	if len(j.Select.Metadata) > 0 {
		metadata := make(map[string]string, len(j.Select.Metadata))
		for name, text := range j.Select.Metadata {
			metadata[shownSelector(name)] = shownSelector(text)
		}
		sel["metadata"] = metadata
	}
	if len(j.Select.Roles) > 0 {
		sel["roles"] = j.Select.Roles
	}
	return map[string]any{
		"job": j.ID, "action": j.Action, "state": j.State, "selector": sel, "reason": j.Reason, "reason_code": string(j.Code),
		"created": stamp(j.Created), "finished": stamp(j.Finished), "after": j.After,
		"seen": j.Seen, "acted": j.Acted, "keys": j.Keys, "failed": j.Failed, "failures": failures,
	}
}

// shownSelector is a text of a selector as answers show it. It is compared as it
// was given, since what a role or a key has may be of an older build, or have come
// from elsewhere.
func shownSelector(text string) string {
	clean, _ := policy.CleanText(text, maxReason, false)
	return clean
}

func (b *backend) readJob(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	job, err := getRecord[jobRecord](ctx, req.Storage, jobPath(in.text("job")))
	if err != nil || job == nil {
		return nil, err
	}
	return answer(job.view()), nil
}

func (b *backend) stopJob(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	return nil, b.endJob(ctx, req.Storage, in.text("job"))
}

func (b *backend) listJobs(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	ids, err := list(ctx, req.Storage, jobPrefix)
	if err != nil {
		return nil, err
	}
	return windowOf(in).collect(ids, func(id string) (map[string]any, error) {
		job, err := getRecord[jobRecord](ctx, req.Storage, jobPath(id))
		if errors.Is(err, errSchema) {
			// One that a newer build made hides no other.
			return map[string]any{"action": "", "state": "unreadable", "created": "", "acted": 0, "failed": 0}, nil
		}
		if err != nil || job == nil {
			return nil, err
		}
		return map[string]any{"action": job.Action, "state": job.State, "created": stamp(job.Created), "acted": job.Acted, "failed": job.Failed}, nil
	})
}
