// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"net/http"
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
	// dryRunBudget is how long a dry run looks for roles before it answers with
	// what it has found.
	dryRunBudget = 3 * time.Second
	dryRunShown  = 1000
)

// jobFields describe a job in answers.
func jobFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"job":      {Type: framework.TypeString, Description: "The job's id; empty for a dry run.", Required: true},
		"action":   {Type: framework.TypeString, Description: "What is done.", Required: true},
		"state":    {Type: framework.TypeString, Description: "dry_run, running, done or stopped.", Required: true},
		"selector": {Type: framework.TypeMap, Description: "What is meant."},
		"reason":   {Type: framework.TypeString, Description: "Why."},
		"created":  {Type: framework.TypeString, Description: "When the job was made (RFC 3339)."},
		"finished": {Type: framework.TypeString, Description: "When it ended (RFC 3339); empty before."},
		"after":    {Type: framework.TypeString, Description: "The last role that is done with, by name."},
		"seen":     {Type: framework.TypeInt, Description: "Roles looked at."},
		"acted":    {Type: framework.TypeInt, Description: "Roles acted on."},
		"keys":     {Type: framework.TypeInt, Description: "Keys of dynamic roles acted on."},
		"failed":   {Type: framework.TypeInt, Description: "Roles where the action failed."},
		"failures": {Type: framework.TypeSlice, Description: "The last of these, each with role and error."},
		"roles":    {Type: framework.TypeStringSlice, Description: "Dry run: the roles that would be acted on, at most 1000."},
		"matched":  {Type: framework.TypeInt, Description: "Dry run: how many were found."},
		"complete": {Type: framework.TypeBool, Description: "Dry run: every role was looked at. If not, there may be more."},
		"replayed": replayFields()["replayed"], "replayed_at": replayFields()["replayed_at"],
	}
}

func (b *backend) pathsBulk() []*framework.Path {
	attrs := func(verb, suffix string) *framework.DisplayAttributes {
		return &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: verb, OperationSuffix: suffix}
	}
	return []*framework.Path{
		{
			Pattern: "bulk/?",
			Fields: fields(pageFields(), map[string]*framework.FieldSchema{
				"action":       {Type: framework.TypeString, Description: "rotate, revoke, disable or enable."},
				"dry_run":      {Type: framework.TypeBool, Default: true, Description: "Only list what would be touched. Set it to false to do it."},
				"owner":        {Type: framework.TypeString, Description: "Roles of this owner."},
				"name_prefix":  {Type: framework.TypeString, Description: "Roles whose names begin so."},
				"metadata":     {Type: framework.TypeKVPairs, Description: "Roles with all of this metadata."},
				"scope":        {Type: framework.TypeString, Description: "Roles whose scopes cover this one."},
				"issued_to":    {Type: framework.TypeString, Description: "With revoke: the keys of dynamic roles that were issued to this entity id or display name."},
				"roles":        {Type: framework.TypeCommaStringSlice, Description: "These roles, at most 1000."},
				"reason":       {Type: framework.TypeString, Description: "Why; kept in the roles' histories."},
				"grace_period": {Type: framework.TypeDurationSecond, Description: "With rotate: how long the versions before stay valid. Default: each role's own."},
				"rotate":       {Type: framework.TypeBool, Default: true, Description: "With revoke: replace what is killed."},
				"request_id":   {Type: framework.TypeString, Description: actionFields(true)["request_id"].about},
				"pace":         {Type: framework.TypeInt, Default: defaultBulkPace, Description: "Actions per second; 0 is no limit."},
			}),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: writes(&framework.PathOperation{
					Callback: handle(b.bulk), Summary: "Do the same to many roles, as a job.", Responses: ok("The job, or what it would touch.", jobFields()),
					DisplayAttrs: attrs("start", "bulk-job"),
				}),
				logical.ListOperation: &framework.PathOperation{
					Callback: handle(b.listJobs), Summary: "The jobs.", DisplayAttrs: attrs("list", "bulk-jobs"),
					Responses: ok("The job ids.", listFields("By job id: action, state, created, acted and failed.")),
				},
			},
			DisplayAttrs: attrs("", "bulk-jobs"),
			HelpSynopsis: "Do the same to many roles, as a job.",
			HelpDescription: `
Rotates, revokes, disables or enables the roles that all given selectors match.
By default nothing is done: the answer lists what would be touched. With
dry_run=false a job is made, which the periodic function works on at the given
pace, also after a restart. Jobs that end keys go before others.`,
		},
		{
			Pattern: "bulk/(?P<job>[^/]+)",
			Fields:  map[string]*framework.FieldSchema{"job": {Type: framework.TypeString, Description: "The job's id."}},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{
					Callback: handle(b.readJob), Summary: "How far a job has come.", DisplayAttrs: attrs("read", "bulk-job"), Responses: ok("The job.", jobFields()),
				},
				logical.DeleteOperation: writes(&framework.PathOperation{
					Callback: handle(b.stopJob), Summary: "Stop a job; what it did stays done.", DisplayAttrs: attrs("stop", "bulk-job"),
					Responses: map[int][]framework.Response{http.StatusNoContent: {{Description: "Stopped, forgotten, or there was no such job."}}, http.StatusBadRequest: refusedAnswer},
				}),
			},
			DisplayAttrs:    attrs("", "bulk-job"),
			HelpSynopsis:    "Read or stop a job.",
			HelpDescription: "Shows how far a job has come. Deleting a running job stops it, deleting one that has ended forgets it.",
		},
	}
}

// readJobRequest reads and checks what a job is to do.
func readJobRequest(req *logical.Request, d *framework.FieldData) (*jobRecord, error) {
	by, err := actorOf(req, d)
	if err != nil {
		return nil, err
	}
	job := &jobRecord{
		Schema: recordSchema, Action: d.Get("action").(string), Reason: by.reason, Replace: d.Get("rotate").(bool),
		Pace: d.Get("pace").(int), EntityID: by.entityID, Display: by.display, State: jobRunning,
		RequestID: by.requestID, Caller: by.caller, Params: paramsDigest(d),
		Select: selector{
			Owner: d.Get("owner").(string), Prefix: d.Get("name_prefix").(string), Metadata: d.Get("metadata").(map[string]string),
			Scope: d.Get("scope").(string), IssuedTo: d.Get("issued_to").(string), Roles: d.Get("roles").([]string),
		},
	}
	if v, ok := d.GetOk("grace_period"); ok {
		g := policy.Seconds(v.(int))
		job.Grace = &g
	}
	switch {
	case !slices.Contains([]string{bulkRotate, bulkRevoke, bulkDisable, bulkEnable}, job.Action):
		return nil, refusal.New("action", job.Action, "must be one of rotate, revoke, disable, enable", "choose one")
	case job.Select.empty():
		return nil, refusal.New("name_prefix", nil, "nothing selects the roles", "give owner, name_prefix, metadata, scope, issued_to or roles")
	case len(job.Select.Roles) > maxBatchItems:
		return nil, refusal.New("roles", len(job.Select.Roles), "names more than 1000 roles", "select them by owner, name_prefix or metadata, or make several jobs")
	case job.Select.IssuedTo != "" && job.Action != bulkRevoke:
		return nil, refusal.New("issued_to", job.Select.IssuedTo, "goes with revoke only: the other actions mean whole roles", "leave it out, or revoke")
	case job.Grace != nil && job.Action != bulkRotate:
		return nil, refusal.New("grace_period", int64(*job.Grace), "goes with rotate only", "leave it out")
	case job.Grace != nil && job.Grace.Duration() > maxGraceWithoutRotation:
		return nil, refusal.New("grace_period", int64(*job.Grace), "is more than 400 days", "choose a shorter one")
	case job.Pace < 0 || job.Pace > 10000:
		return nil, refusal.New("pace", job.Pace, "must be from 0 to 10000", "choose another")
	}
	for _, name := range job.Select.Roles {
		if !validName(name) {
			return nil, refusal.New("roles", name, "is not the name of a role", "correct it")
		}
	}
	for field, text := range map[string]string{"owner": job.Select.Owner, "issued_to": job.Select.IssuedTo, "name_prefix": job.Select.Prefix, "scope": job.Select.Scope} {
		if keyformat.Redact(text) != text {
			return nil, refusal.New(field, nil, "holds an API key", "select by something else")
		}
	}
	return job, nil
}

func (b *backend) bulk(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	job, err := readJobRequest(req, d)
	if err != nil {
		return nil, err
	}
	if d.Get("dry_run").(bool) {
		return b.dryRun(ctx, req.Storage, job)
	}
	b.jobs.edit.Lock()
	defer b.jobs.edit.Unlock()
	ids, err := list(ctx, req.Storage, jobPrefix)
	if err != nil {
		return nil, err
	}
	if first, err := b.sameJob(ctx, req.Storage, ids, job); err != nil {
		return nil, err
	} else if first != nil {
		b.jobs.forget() // it may be new to this node
		data := first.view()
		data["replayed"], data["replayed_at"] = true, stamp(first.Created)
		return answer(data), nil
	}
	if len(ids) >= maxJobs {
		return nil, refusal.New("bulk", nil, fmt.Sprintf("there are %d jobs", len(ids)), "delete those that have ended")
	}
	if job.ID, err = newUUID(b.rand); err != nil {
		return nil, err
	}
	job.Created = b.now()
	defer b.jobs.forget()
	if err := putRecord(ctx, req.Storage, jobPath(job.ID), job); err != nil {
		return nil, err
	}
	return answer(job.view()), nil
}

// sameJob is the job that the same request made before, nil if there is none. It
// refuses a request id that was used for another.
func (b *backend) sameJob(ctx context.Context, s logical.Storage, ids []string, job *jobRecord) (*jobRecord, error) {
	if job.RequestID == "" {
		return nil, nil
	}
	for _, id := range ids {
		first, err := getRecord[jobRecord](ctx, s, jobPath(id))
		if err != nil {
			return nil, err
		}
		if first == nil || first.RequestID != job.RequestID || first.Caller != job.Caller {
			continue
		}
		if first.Params != job.Params {
			return nil, refusal.New("request_id", job.RequestID, "was used at "+stamp(first.Created)+" with other parameters",
				"repeat those, or use a new id")
		}
		return first, nil
	}
	return nil, nil
}

// dryRun lists the roles that the job would act on.
func (b *backend) dryRun(ctx context.Context, s logical.Storage, job *jobRecord) (*logical.Response, error) {
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
		rec, err := getRecord[roleRecord](ctx, s, rolePath(name))
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
			sel[name] = text
		}
	}
	if len(j.Select.Metadata) > 0 {
		sel["metadata"] = j.Select.Metadata
	}
	if len(j.Select.Roles) > 0 {
		sel["roles"] = j.Select.Roles
	}
	return map[string]any{
		"job": j.ID, "action": j.Action, "state": j.State, "selector": sel, "reason": j.Reason,
		"created": stamp(j.Created), "finished": stamp(j.Finished), "after": j.After,
		"seen": j.Seen, "acted": j.Acted, "keys": j.Keys, "failed": j.Failed, "failures": failures,
	}
}

func (b *backend) readJob(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	job, err := getRecord[jobRecord](ctx, req.Storage, jobPath(d.Get("job").(string)))
	if err != nil || job == nil {
		return nil, err
	}
	return answer(job.view()), nil
}

func (b *backend) stopJob(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.jobs.edit.Lock()
	defer b.jobs.edit.Unlock()
	path := jobPath(d.Get("job").(string))
	job, err := getRecord[jobRecord](ctx, req.Storage, path)
	if err != nil || job == nil {
		return nil, err
	}
	if job.State != jobRunning {
		b.jobs.forget()
		return nil, deleteRecord(ctx, req.Storage, path)
	}
	job.State, job.Finished = jobStopped, b.now()
	return nil, putRecord(ctx, req.Storage, path, job)
}

func (b *backend) listJobs(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	w, err := windowAsked(d)
	if err != nil {
		return nil, err
	}
	ids, err := list(ctx, req.Storage, jobPrefix)
	if err != nil {
		return nil, err
	}
	return w.collect(ids, func(id string) (map[string]any, error) {
		job, err := getRecord[jobRecord](ctx, req.Storage, jobPath(id))
		if err != nil || job == nil {
			return nil, err
		}
		return map[string]any{"action": job.Action, "state": job.State, "created": stamp(job.Created), "acted": job.Acted, "failed": job.Failed}, nil
	})
}
