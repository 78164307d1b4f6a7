// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// What a commit tells is in the outbox before the commit, with what proves that the
// commit happened. From then on nothing of it can be lost: not by a crash, which leaves
// an entry that is proven or not, and not by what becomes of the role. Only the worker
// changes an entry. It strikes out who has been told, and deletes it at last.
//
// Where no endpoint wants to know, none of this happens.

const (
	// unprovenFor is how long an entry waits for the commit that it belongs to: longer
	// than any write may land late.
	unprovenFor = 10 * time.Minute
	// outboxKept is how long an event waits for an endpoint.
	outboxKept = 7 * 24 * time.Hour
	// commitsKept is how many ids of commits a role's record lists, keyCommits a key's.
	commitsKept = 64
	keyCommits  = 8
	// maxTold is how many events one commit tells at most.
	maxTold = 64
)

// outbox is what this node knows of the outbox, and how deliveries go.
type outbox struct {
	mu sync.Mutex

	heads map[string]*head // by commit id
	marks map[*head]bool   // those that are to be written or deleted
	posts map[string]*post // by endpoint id
	seqs  map[string]int64 // last sequence of roles whose record does not hold it
	late  []*telling       // what the outbox could not take with a kill, of no role's record
	walk  outboxWalk
	ended map[string]*endedUse // of the present day, by version or key

	proved, expired time.Time // when entries were last looked at that are not proven, or too old
	unsure          int       // heads whose commit is not known to have happened
	packed          bool      // no room can be made before the next step
	most            int       // heads at most; 0: maxHeads

	may    func() bool     // this node may deliver
	spawn  func(func())    // runs a delivery beside the worker
	flight context.Context //nolint:containedctx // deliveries end with it
	cancel context.CancelFunc
}

// open readies it; may says whether this node may deliver.
func (o *outbox) open(may func() bool) {
	o.may, o.spawn = may, func(fn func()) { go fn() }
	o.flight, o.cancel = context.WithCancel(context.Background())
}

// timeOver reports whether nothing more is to be begun.
func timeOver(begin context.Context) bool { return begin.Err() != nil }

// commitIDs and tags are lower-case letters and digits.
var tagForm = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding)

func (b *backend) randomTag(bytes int) (string, error) {
	raw := make([]byte, bytes)
	if _, err := io.ReadFull(b.rand, raw); err != nil {
		return "", fmt.Errorf("reading randomness: %w", err)
	}
	return tagForm.EncodeToString(raw), nil
}

// addressed is the events with their addressees, without those that nobody wants.
func (b *backend) addressed(ctx context.Context, s logical.Storage, facts []fact) ([]fact, error) {
	if len(facts) == 0 {
		return nil, nil
	}
	endpoints, err := b.listeners(ctx, s)
	if err != nil {
		return nil, err
	}
	if len(endpoints) == 0 {
		return nil, nil
	}
	var wanted []fact
	for _, f := range facts[:min(len(facts), maxTold)] {
		role, _ := f.Data["role"].(string)
		extra := false
		for _, e := range endpoints {
			if e.wants(f.Type, role) && e.ID != f.not {
				f.To = append(f.To, e.ID)
				extra = extra || len(e.Include) > 0
			}
		}
		if len(f.To) == 0 {
			continue
		}
		if !extra {
			f.Metadata, f.Actor, f.Text = nil, nil, nil
		}
		if f.Tag, err = b.randomTag(5); err != nil {
			return nil, err
		}
		f.fit()
		wanted = append(wanted, f)
	}
	return wanted, nil
}

// sequence gives the events their sequence, after the last one of the role, and returns
// the new last one. It follows the clock, so that it grows also where the last one is not
// known.
func sequence(facts []fact, last int64, now time.Time) int64 {
	for i := range facts {
		last = max(last+1, now.UnixMilli())
		facts[i].Seq = last
	}
	return last
}

// forWhat is the record that proves a telling.
type forWhat struct {
	proof               proofKind
	role, roleID, keyID string
}

// foretell puts what a commit is about to tell into the outbox. The facts are numbered.
// nil is nothing; with an error the telling is what the outbox could not take.
func (b *backend) foretell(ctx context.Context, s logical.Storage, facts []fact, of forWhat) (*telling, error) {
	if len(facts) == 0 {
		return nil, nil
	}
	commit, err := b.randomTag(10)
	if err != nil {
		return nil, err
	}
	now := b.clock.Now()
	t := &telling{
		path: outboxPath(now, commit),
		rec: &outboxRecord{
			Schema: recordSchema, Commit: commit, At: now.Truncate(time.Second), Proof: of.proof,
			Role: of.role, RoleID: of.roleID, KeyID: of.keyID, Facts: facts,
		},
	}
	return t, b.store(ctx, s, t)
}

func (b *backend) store(ctx context.Context, s logical.Storage, t *telling) error {
	err := putRecord(ctx, s, t.path, t.rec)
	t.stored, t.maybe = err == nil, outcomeUnknown(err)
	return err
}

// toldOutcome is told what came of a commit that the outbox knows.
func (b *backend) toldOutcome(t *telling, err error) {
	if t == nil {
		return
	}
	o := &b.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	t.settled = true
	switch {
	case !t.stored && err == nil && !t.kept:
		if o.late = append(o.late, t); len(o.late) > maxHeads {
			o.late = o.late[1:]
			b.Logger().Error("an event goes untold: the outbox has refused too many")
		}
	case !t.stored && t.maybe:
		o.add(t.path, t.rec, void) // the record that was committed holds it, if there is one
	case !t.stored:
		return
	case err == nil:
		o.add(t.path, t.rec, proven)
	case outcomeUnknown(err):
		o.add(t.path, t.rec, unproven)
	default:
		o.add(t.path, t.rec, void)
	}
	b.wakeOutbox()
}

// toldVoid is told that a commit did not come about, unless it has.
func (b *backend) toldVoid(t *telling) {
	if !t.settled {
		b.toldOutcome(t, logical.ErrReadOnly) // it was not even tried
	}
}

// wakeOutbox has the worker look at the outbox.
func (b *backend) wakeOutbox() { b.wake.quietly(b.clock.Now()) }

// tellAlone tells what no commit of another record stands behind.
func (b *backend) tellAlone(ctx context.Context, s logical.Storage, f fact) error {
	facts, err := b.addressed(ctx, s, []fact{f})
	if err != nil || len(facts) == 0 {
		return err
	}
	role, _ := f.Data["role"].(string)
	id, _ := f.Data["role_id"].(string)
	b.numberLoose(facts, id)
	t, err := b.foretell(ctx, s, facts, forWhat{proof: proofSelf, role: role, roleID: id})
	if err != nil {
		return err // where the outcome is unknown it may be told twice
	}
	b.toldOutcome(t, nil)
	return nil
}

// numberLoose numbers events of a role whose record they do not change.
func (b *backend) numberLoose(facts []fact, roleID string) {
	o := &b.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.seqs) >= maxHeads {
		clear(o.seqs) // the clock has gone on since
	}
	if o.seqs == nil {
		o.seqs = map[string]int64{}
	}
	o.seqs[roleID] = sequence(facts, o.seqs[roleID], b.clock.Now())
}

// proof is what is known of whether the commit of an entry happened.
type proof uint8

const (
	unproven proof = iota
	proven
	void // it did not
)

// prove looks whether the commit of an entry happened. One whose record does not say so
// yet may still, until it is too old for that.
func (b *backend) prove(ctx context.Context, s logical.Storage, e *outboxRecord) (proof, error) {
	var ok bool
	var err error
	switch e.Proof {
	case proofSelf:
		return proven, nil
	case proofKey:
		ok, err = b.keyCommitted(ctx, s, e)
	case proofGone:
		ok, err = b.goneCommitted(ctx, s, e)
	default:
		ok, err = b.roleCommitted(ctx, s, e)
	}
	switch {
	case errors.Is(err, errSchema):
		return unproven, nil // a newer build knows
	case err != nil:
		return unproven, err
	case ok:
		return proven, nil
	case b.clock.Now().Sub(e.At) > unprovenFor:
		return void, nil
	default:
		return unproven, nil
	}
}

func (b *backend) keyCommitted(ctx context.Context, s logical.Storage, e *outboxRecord) (bool, error) {
	rec, err := getRecord[keyRecord](ctx, s, keyPath(e.KeyID))
	return err == nil && rec != nil && slices.Contains(rec.Commits, e.Commit), err
}

// roleCommitted looks at the role's record, wherever it stands, and then at its archive.
func (b *backend) roleCommitted(ctx context.Context, s logical.Storage, e *outboxRecord) (bool, error) {
	for _, read := range []func() (*roleRecord, error){
		func() (*roleRecord, error) { return b.storedOf(ctx, s, e.Role, e.RoleID) },
		func() (*roleRecord, error) { return b.shownOf(ctx, s, e.Role, e.RoleID) },
		func() (*roleRecord, error) { return getRecord[roleRecord](ctx, s, deletedPath(e.RoleID)) },
	} {
		rec, err := read()
		if err != nil {
			return false, err
		}
		if rec != nil && rec.ID == e.RoleID && slices.Contains(rec.Commits, e.Commit) {
			return true, nil
		}
	}
	return archivedCommit(ctx, s, e)
}

// archivedCommit looks for the commit in the pages of the archive that are younger.
func archivedCommit(ctx context.Context, s logical.Storage, e *outboxRecord) (bool, error) {
	names, err := list(ctx, s, archivePrefix+e.RoleID+"/")
	if err != nil {
		return false, err
	}
	var pages []int
	for _, name := range names {
		if n, ok := pageNumber(name); ok {
			pages = append(pages, n)
		}
	}
	slices.Sort(pages)
	for _, n := range slices.Backward(pages) {
		page, err := getRecord[archivePage](ctx, s, archivePath(e.RoleID, n))
		if err != nil {
			return false, err
		}
		switch {
		case page == nil:
		case slices.Contains(page.Commits, e.Commit):
			return true, nil
		case page.Written.Before(e.At):
			return false, nil
		}
	}
	return false, nil
}

// goneCommitted: the role is deleted, or it was and came back since.
func (b *backend) goneCommitted(ctx context.Context, s logical.Storage, e *outboxRecord) (bool, error) {
	rec, err := b.storedOf(ctx, s, e.Role, e.RoleID)
	if err != nil {
		return false, err
	}
	if rec == nil || rec.ID != e.RoleID || rec.marked() {
		return true, nil
	}
	return slices.Contains(rec.Commits, e.Commit), nil
}

// noteCommit adds an id to those that a record lists.
func noteCommit(commits []string, id string, most int) []string {
	commits = append(slices.Clone(commits), id)
	return commits[max(0, len(commits)-most):]
}

// nameOf is the id of an event's deliveries, the same for each of them.
func (f *fact) nameOf(mountTag string) string {
	id, _ := f.Data["role_id"].(string)
	if id == "" {
		id = mountTag
	}
	return fmt.Sprintf("%s-%d-%s", id, f.Seq, f.Tag)
}

// messageName is the id of a message. That of a digest names what is in it: one that is
// tried again with more in it is another, so that nobody who drops what he knows misses
// the rest.
func messageName(facts []*fact, mountTag string) string {
	name := facts[0].nameOf(mountTag)
	if len(facts) == 1 {
		return name
	}
	sum := sha256.New()
	for _, f := range facts {
		_, _ = sum.Write([]byte(f.nameOf(mountTag) + "\n")) // a hash.Hash never fails
	}
	return name + "-" + tagForm.EncodeToString(sum.Sum(nil)[:5])
}

// mountTag is a name of the mount that says nothing else.
func (b *backend) mountTag() string {
	return strings.ReplaceAll(strings.ToLower(b.mountID), ".", "-")
}

// payload is what the event tells an endpoint that includes that much.
func (f *fact) payload(include []string) map[string]any {
	data := make(map[string]any, len(f.Data)+4)
	for name, v := range f.Data {
		data[name] = v
	}
	data["sequence"] = f.Seq
	if slices.Contains(include, includeMetadata) && len(f.Metadata) > 0 {
		data["metadata"] = f.Metadata
	}
	if slices.Contains(include, includeActor) && len(f.Actor) > 0 {
		data["actor"] = f.Actor
	}
	if slices.Contains(include, includeText) {
		for name, text := range f.Text {
			data[name] = text
		}
	}
	return data
}

func encodedSize(v any) int {
	data, err := json.Marshal(v)
	if err != nil {
		return 0
	}
	return len(data)
}
