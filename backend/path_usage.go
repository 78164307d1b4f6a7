// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/usage"
)

const (
	maxReportedCount = 1e9
	// reportSkew is how far a reporter's clock may be off.
	reportSkew = 10 * time.Minute
)

var instanceForm = regexp.MustCompile(`^[A-Za-z0-9._:/-]{1,128}$`)

func (b *backend) pathsUsage() []*framework.Path {
	spec := func(pattern, suffix, synopsis string, extra fieldSet) *framework.Path {
		return b.path(pathSpec{
			pattern: pattern, verb: "report", suffix: suffix, synopsis: synopsis, fields: fieldsOf(usageFields(), extra), help: usageHelp,
			ops: map[logical.Operation]operation{
				logical.UpdateOperation: {
					do: b.reportUsage, writes: true, told: "What was taken.",
					answer: map[string]*framework.FieldSchema{
						"applied":  {Type: framework.TypeBool, Description: "The report was taken; false for a repeat.", Required: true},
						"sequence": {Type: framework.TypeInt64, Description: "The highest sequence taken from this caller and instance.", Required: true},
						"results":  {Type: framework.TypeSlice, Description: "Per item, in order: ok, and error if it was refused. Empty for a repeat.", Required: true},
					},
				},
			},
		})
	}
	return []*framework.Path{
		spec("usage", "usage", "Report uses that a cache has judged.", nil),
		spec("usage/"+nameRegex, "usage-of-role", "Report uses of that role's keys that a cache has judged.",
			fieldSet{"name": {about: "The role whose keys are known; an item about any other key is refused."}}),
	}
}

const usageHelp = `
A cache that answers for the server counts what it answers and reports it here.
What was reported is shown apart from what the server saw itself. It prolongs
graces only where the mount's config names the reporter in trusted_reporters.

The reporter is the caller's entity, or its token, together with instance. A
report is repeated with the same sequence until it is answered: it counts once,
unless the server has restarted or failed over in between. An item with an unknown
key id or an absurd count or time is refused by itself.

usage/<role> knows the keys of that role only, so that a policy can bind a gateway
to it. The sequence of an instance is the same on both paths.`

func usageFields() fieldSet {
	return fieldSet{
		"instance": {
			kind: kindText, required: true,
			about: "Tells the caller's instances apart: 1 to 128 of A-Z a-z 0-9 . _ : / - A new one after a restart that forgot its sequence.",
		},
		"sequence": {
			kind: kindSequence, required: true,
			about: "The number of this report, from 1 to 9007199254740992, growing with each. A repeat, or a lower one, changes nothing.",
		},
		"batch": batchOf("What was counted since the previous report: key_id, role_id (optional), accepted, refused (counts by code), " +
			"first and last (RFC 3339 or Unix seconds), client (optional label)."),
	}
}

// usageItem are the fields of an item of a report.
func usageItem() fieldSet {
	return fieldSet{
		"key_id":   {kind: kindText, secret: true},
		"role_id":  {kind: kindText},
		"accepted": {kind: kindInteger},
		"refused":  {kind: kindCounts},
		"first":    {kind: kindInstant},
		"last":     {kind: kindInstant},
		"client":   {kind: kindText, empty: emptyTaken, free: &freeText{limit: maxClient, cleaned: true}},
	}
}

var usageItemFields = usageItem()

// reportedItem is an item of a usage report.
type reportedItem struct {
	keyID, roleID, client string
	accepted              int64
	refused               map[string]int64
	first, last           time.Time
}

func readReportedItem(raw json.RawMessage) (*reportedItem, error) {
	in, err := usageItemFields.readItem(raw)
	if err != nil {
		return nil, err
	}
	item := &reportedItem{
		keyID: in.text("key_id"), roleID: in.text("role_id"), client: in.text("client"), accepted: in.integer("accepted"),
		refused: valueOf[map[string]int64](in, "refused"),
	}
	if item.first, err = in.moment("first"); err != nil {
		return nil, err
	}
	item.last, err = in.moment("last")
	return item, err
}

// reportedUse is an item that was found to be in order.
type reportedUse struct {
	key    *keyRecord
	report usage.Report
}

func (b *backend) reportUsage(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	instance, sequence := in.text("instance"), in.integer("sequence")
	switch {
	case !instanceForm.MatchString(instance):
		return nil, refusal.New("instance", instance, "must be 1 to 128 of A-Z a-z 0-9 . _ : / -", "use, for example, the pod's name")
	case sequence < 1:
		return nil, refusal.New("sequence", sequence, "must be 1 or more", "count the instance's reports from 1")
	}
	items, err := batchItems(in.text("batch"))
	if err != nil {
		return nil, err
	}
	cfg, err := b.configOrLast(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	results := make([]any, len(items))
	uses := make([]*reportedUse, 0, len(items))
	for i, item := range items {
		use, err := b.reportedUse(ctx, req.Storage, item, in.text("name"))
		if r := refusal.In(err); r != nil {
			results[i] = map[string]any{"ok": false, "error": r.Error()}
			continue
		}
		if err != nil {
			return nil, err
		}
		results[i] = map[string]any{"ok": true}
		use.report.Trusted = cfg.trusts(req.EntityID)
		uses = append(uses, use)
	}

	highest, isNew := b.usage.reporters.Take(requester(req).caller, instance, sequence)
	if !isNew {
		return answer(map[string]any{"applied": false, "sequence": highest, "results": []any{}}), nil
	}
	now := b.now()
	for _, use := range uses {
		b.countReported(use, now)
	}
	return answer(map[string]any{"applied": true, "sequence": sequence, "results": results}), nil
}

// countReported counts uses that somebody else judged.
func (b *backend) countReported(use *reportedUse, now time.Time) {
	key, report := use.key, use.report
	b.usage.counter.Told(usage.ID{RoleID: key.RoleID, Version: key.Version}, key.Role, &report, now)
	if key.Dynamic {
		report.Client, report.Urgent = "", false
		b.usage.counter.Told(usage.ID{RoleID: key.RoleID, Version: key.Version, KeyID: key.ID}, key.Role, &report, now)
	}
}

// reportable are the codes that a cache may report counts of.
var reportable = []code{codeExpired, codeRetired, codeRevoked, codeDisabled, codeScope, codeIP, codeRate}

func mayReport(name string) bool {
	return slices.ContainsFunc(reportable, func(c code) bool { return c.String() == name })
}

// reportedUse reads an item; a refusal says what is wrong with it. Where a role is named
// only its keys are known.
func (b *backend) reportedUse(ctx context.Context, s logical.Storage, raw json.RawMessage, only string) (*reportedUse, error) {
	item, err := readReportedItem(raw)
	if err != nil {
		return nil, err
	}
	unknown := refusal.New("key_id", nil, "is not known", "report uses by the key_id that verify answered")
	if !keyformat.ValidID(item.keyID) {
		return nil, unknown
	}
	use := &reportedUse{report: usage.Report{Client: keyformat.Redact(item.client)}}
	if err := use.count(item); err != nil {
		return nil, err
	}
	key, err := b.keys.getOrAbsent(ctx, s, keyPath(item.keyID), b.clock.Now())
	if err != nil {
		return nil, err
	}
	if key == nil || (item.roleID != "" && item.roleID != key.RoleID) {
		return nil, unknown
	}
	role, err := b.roleOf(ctx, s, key.Role, key.RoleID, b.clock.Now())
	if err != nil {
		return nil, err
	}
	now := b.now()
	st, exists := statusOf(key, role, now)
	if !exists || only != "" && role.Name != only {
		return nil, unknown
	}
	use.key, use.report.Urgent = key, st.State == keyring.Previous && use.report.Accepted > 0
	return use, use.within(item, madeAt(key, role), now)
}

// madeAt is when the key was made; zero where that is forgotten.
func madeAt(key *keyRecord, role *roleRecord) time.Time {
	if key.Dynamic {
		return key.Issued
	}
	if v := role.Ring.Get(key.Version); v != nil {
		return v.Created
	}
	return time.Time{}
}

func (u *reportedUse) count(item *reportedItem) error {
	absurd := func(field string, n int64) error {
		if n < 0 || n > maxReportedCount {
			return refusal.New(field, n, "must be from 0 to 1000000000", "report what was counted since the previous report")
		}
		return nil
	}
	if err := absurd("accepted", item.accepted); err != nil {
		return err
	}
	u.report.Accepted = item.accepted
	for _, name := range sortedKeys(item.refused) {
		if !mayReport(name) {
			return refusal.New("refused", name, "is not a code that refuses a known key", "report the codes that verify answers")
		}
		if err := absurd("refused", item.refused[name]); err != nil {
			return err
		}
		u.report.Refused = append(u.report.Refused, usage.Refusal{Code: name, Count: item.refused[name]})
	}
	return nil
}

// within checks the times of the item, and cuts off what clocks that differ
// explain.
func (u *reportedUse) within(item *reportedItem, made, now time.Time) error {
	first, last := item.first, item.last
	if last.IsZero() {
		return refusal.New("last", nil, "is missing", "give the time of the last use")
	}
	if first.IsZero() {
		first = last
	}
	switch {
	case last.Before(first):
		return refusal.New("last", stamp(last), "is before first", "give the times of the first and the last use")
	case last.Sub(now) > reportSkew:
		return refusal.New("last", stamp(last), "is in the future; it is "+stamp(now)+" here", "set the reporter's clock")
	case !made.IsZero() && made.Sub(first) > reportSkew:
		return refusal.New("first", stamp(first), "is before the key was made", "set the reporter's clock")
	}
	if first.Before(made) {
		first = made
	}
	if first.After(now) {
		first = now
	}
	if last.Before(first) {
		last = first
	}
	if last.After(now) {
		last = now
	}
	u.report.First, u.report.Last = first, last
	return nil
}
