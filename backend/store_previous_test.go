// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// An upgrade finds a store that the build before has written. Here it is one
// with every kind of record and every field (testdata/README.md), with what that
// build answered on it. All of it is said in requests, answers and stored bytes,
// so that it holds whatever becomes of the code.

// meantDifferences are the places where this build is meant to answer otherwise
// than the previous one: patterns (path.Match) of the request and of the place
// in its answer.
var meantDifferences = []struct{ request, place, why string }{
	{"update verify", "reason", "what was revoked without a reason code is unspecified"},
	{"read status/*", "rotation", "where nothing is planned it explains the rotation_period of creds"},
	{"list inventory/", "key_info/failing/rotation", "the worker does what is overdue"},
	{"update rotate/crowd", "error", "the cause is named first, not the field that overrides it"},
	{"update revoke/owed", "*", "what was asked for the first time is not known: it kills again, and nothing was left to kill"},
}

// newFields are fields that this build writes into records that keep schema 1:
// an older build drops them, and that must do no harm.
var newFields = map[string]string{
	"role.plan":                      "the older build goes on from next, which this one takes up again",
	"role.plan.slot":                 "as plan",
	"role.plan.version":              "as plan",
	"role.plan.since":                "as plan",
	"role.plan.before":               "as plan",
	"role.ttl_seen":                  "leases may be as long as lease_ttl",
	"role.moved":                     "a record without the mark counts where moved/ names it",
	"role.moved.mark":                "as moved",
	"role.moved.from":                "the history tells it",
	"role.moved.at":                  "as from",
	"role.ring.versions.past":        "a withdrawn version that was given a later end ends with the grace of its successor",
	"role.ring.until":                "goes with policy.valid_until: the role has no end any more",
	"role.policy.valid_until":        "the operator's tool sees that it is gone; what has ended by then is marked",
	"role.policy.rotation_window":    "a rotation that was missed comes at once",
	"prefixes.imported":              "tidy finds them again",
	"prefixes.imported_truncated":    "there are more than are listed; tidy finds that out again",
	"prefixes.aside":                 "no key has them any more",
	"tidy.foreign":                   "the pass lets nothing shrink",
	"tidy.foreign.from":              "the same",
	"tidy.foreign.aside":             "the same",
	"tidy.foreign.weak_aside":        "the same",
	"tidy.foreign.numbers":           "the same",
	"tidy.foreign.weak":              "the same",
	"tidy.foreign.maybe_weak":        "the same",
	"tidy.prefixes":                  "the pass lets nothing shrink",
	"tidy.prefixes.own":              "the same",
	"tidy.prefixes.imported":         "the same",
	"tidy.prefixes.unknown":          "the same",
	"key.weak":                       "asked of keys only whose version is forgotten: they ended",
	"role.ring.versions.reason_code": "the end is unspecified",
	"role.history.reason_code":       "the same",
	"archive.entries.reason_code":    "the same",
	"role.deleted_code":              "the same",
	"deleted.deleted_code":           "the same",
	"key.reason_code":                "the same",
	"job.reason_code":                "the same",
	"role.versions.looked_for":       "the older build looks for nobody; this one looks again",
	"role.versions.unclaimed":        "the same",
	"mark.by":                        "it tells of a second instance at work, and decides nothing",
	"usage.versions.d":               "reads are counted anew",
	"usage.versions.d.n":             "the same",
	"usage.versions.d.f":             "the same",
	"usage.versions.d.l":             "the same",
	"config.count_reads":             "the older build counts none",
	"config.trusted_reporters":       "the older build lets no report extend a grace, or, with trust_reported_usage, each",
	"config.edge_max_staleness":      "edges are told nothing by the older build",
	"config.feed_wait":               "the same",
	"config.egress_allow":            "the older build sends nothing",
	"config.egress_proxy":            "the same",
	"config.outbound_paused":         "the same; this one sends again once it has config, which is to be looked at",
	"config.notify_before":           "the older build tells nothing",
	"role.told":                      "sequences follow the clock",
	"role.commits":                   "events of commits before are not proven any more, and go untold after a failover",
	"role.untold":                    "events that the outbox could not take go untold",
	"key.commits":                    "as role.commits",
	"archive.commits":                "the same",
	"role.ring.versions.ending":      "it is told once more",
	"role.ring.versions.expiry_told": "the same",
	"problem.told":                   "that it is over goes untold",
	"problem.overdue":                "it is told once more",
	"usage.versions.*.t":             "as config.trusted_reporters",
	"usage.keys.*.t":                 "the same",
}

// pastCaller is who sent a request.
type pastCaller struct {
	EntityID    string `json:"entity_id"`
	DisplayName string `json:"display_name"`
	Accessor    string `json:"accessor"`
}

// pastRequest is a request and what the previous build answered.
type pastRequest struct {
	As     *pastCaller      `json:"as"`
	Op     string           `json:"op"`
	Path   string           `json:"path"`
	Data   map[string]any   `json:"data"`
	Same   []map[string]any `json:"same"`
	Fresh  bool             `json:"fresh"`
	Varies []string         `json:"varies"`
	Answer pastAnswer       `json:"answer"`
}

type pastAnswer struct {
	Status   int            `json:"status"`
	Error    string         `json:"error"`
	Data     map[string]any `json:"data"`
	Warnings []string       `json:"warnings"`
	Lease    map[string]any `json:"lease"`
}

type pastLease struct {
	What     string         `json:"what"`
	Issued   time.Time      `json:"issued"`
	TTL      int64          `json:"ttl"`
	Internal map[string]any `json:"internal"`
	Key      string         `json:"api_key"`
	Renewal  pastAnswer     `json:"renewal"`
}

// past is the store of the previous build.
type past struct {
	records map[string][]byte
	// fields are those that the previous build knows, by kind of record.
	fields map[string]map[string]bool

	Instant time.Time `json:"instant"`
	Rounds  []struct {
		At        time.Time      `json:"at"`
		Before    []*pastRequest `json:"before"`
		Questions []*pastRequest `json:"questions"`
	} `json:"rounds"`
	Replays []*pastRequest `json:"replays"`
	Leases  []*pastLease   `json:"leases"`
}

var readPast = sync.OnceValues(func() (*past, error) {
	stored := map[string]json.RawMessage{}
	if err := readJSONFile("testdata/store-schema-1.json", &stored); err != nil {
		return nil, err
	}
	p := &past{records: map[string][]byte{}, fields: map[string]map[string]bool{
		// What the store cannot hold beside what it holds.
		"prefixes": {".truncated": true}, "tidy": {".finished": true},
	}}
	for name, value := range stored {
		var compact bytes.Buffer
		if err := json.Compact(&compact, value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		p.records[name] = compact.Bytes()
		kind := recordKind(name)
		if p.fields[kind] == nil {
			p.fields[kind] = map[string]bool{}
		}
		if err := eachField(compact.Bytes(), func(field string) { p.fields[kind][field] = true }); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return p, readJSONFile("testdata/store-schema-1-answers.json", p)
})

func readJSONFile(name string, into any) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("opening the file: %w", err)
	}
	defer f.Close()
	d := json.NewDecoder(f)
	d.UseNumber() // as a server reads a request
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}

func previousStore(t *testing.T) *past {
	t.Helper()
	p, err := readPast()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// open starts this build on a copy of the store, at the store's instant.
func (p *past) open(t *testing.T) *testMount {
	t.Helper()
	s := &logical.InmemStorage{}
	for name, value := range p.records {
		if err := s.Put(context.Background(), &logical.StorageEntry{Key: name, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	c := newFakeClock()
	c.set(p.Instant)
	return mountOn(t, s, c)
}

// asCaller sends the requests from now on as somebody; nil is the usual operator.
func asCaller(m *testMount, c *pastCaller) {
	if c == nil {
		c = &pastCaller{DisplayName: "token-operator", Accessor: "accessor-1"}
	}
	m.request.EntityID, m.request.DisplayName, m.request.ClientTokenAccessor = c.EntityID, c.DisplayName, c.Accessor
}

// sendPast asks a question and returns the answer as JSON reads back.
func sendPast(t *testing.T, m *testMount, q *pastRequest, data map[string]any) pastAnswer {
	t.Helper()
	asCaller(m, q.As)
	defer asCaller(m, nil)
	resp, err := m.do(logical.Operation(q.Op), q.Path, maps.Clone(data))
	var a pastAnswer
	a.Status, a.Error = httpStatus(resp, err)
	if resp == nil && err == nil && q.Op != "read" && q.Op != "list" {
		a.Status = 204
	}
	if a.Error != "" || resp == nil {
		return a
	}
	a.Data, a.Warnings = asJSON(t, resp.Data), resp.Warnings
	if resp.Secret != nil {
		a.Lease = leaseTimes(t, resp)
	}
	return a
}

func leaseTimes(t *testing.T, resp *logical.Response) map[string]any {
	return asJSON(t, map[string]any{
		"ttl": int64(resp.Secret.TTL / time.Second), "max_ttl": int64(resp.Secret.MaxTTL / time.Second), "renewable": resp.Secret.Renewable,
	})
}

func asJSON(t *testing.T, data map[string]any) map[string]any {
	t.Helper()
	text, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]any{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&read); err != nil {
		t.Fatal(err)
	}
	return read
}

func (q *pastRequest) String() string {
	text, err := json.Marshal(q.Data)
	if err != nil {
		return q.Path
	}
	return fmt.Sprintf("%s %s %s", q.Op, q.Path, text)
}

// compare tells where an answer is not what the previous build answered. There
// may be more in it.
func (q *pastRequest) compare(t *testing.T, got pastAnswer, used map[int]bool) {
	t.Helper()
	report := func(place string, want, got any) {
		for i, d := range meantDifferences {
			request, _ := path.Match(d.request, q.Op+" "+q.Path)
			if there, _ := path.Match(d.place, place); request && there {
				used[i] = true
				return
			}
		}
		t.Errorf("%s: %s is %v, and was %v", q, place, got, want)
	}
	want := q.Answer
	if got.Status != want.Status {
		report("status", want.Status, fmt.Sprintf("%d (%s)", got.Status, got.Error))
		return
	}
	// Texts get better; what they are about stays.
	if field, _, _ := strings.Cut(want.Error, ": "); want.Status == 400 && !strings.HasPrefix(got.Error, field+": ") {
		report("error", want.Error, got.Error)
	}
	if len(got.Warnings) != len(want.Warnings) {
		report("warnings", want.Warnings, got.Warnings)
	}
	differences("", toAny(want.Data), toAny(got.Data), report)
	differences("lease", toAny(want.Lease), toAny(got.Lease), report)
}

func toAny(m map[string]any) any {
	if m == nil {
		return nil
	}
	return m
}

// differences reports what of want is missing or different in got.
func differences(at string, want, got any, report func(place string, want, got any)) {
	switch w := want.(type) {
	case nil:
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			report(at, want, got)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(w)) {
			place := strings.TrimPrefix(at+"/"+name, "/")
			if _, there := g[name]; !there {
				report(place, w[name], "missing")
				continue
			}
			differences(place, w[name], g[name], report)
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			report(at, want, got)
			return
		}
		for i := range w {
			differences(fmt.Sprintf("%s/%d", at, i), w[i], g[i], report)
		}
	default:
		if want != got {
			report(at, want, got)
		}
	}
}

// TestPreviousStoreAnswers: at the instant of the upgrade everybody is answered
// what they were answered the instant before; also by a clock that goes back.
func TestPreviousStoreAnswers(t *testing.T) {
	p := previousStore(t)
	used := map[int]bool{}
	for _, round := range p.Rounds {
		begin := func() *testMount {
			m := p.open(t)
			m.clock.set(round.At)
			for _, q := range round.Before {
				q.compare(t, sendPast(t, m, q, q.Data), used)
			}
			return m
		}
		shared := begin()
		for _, q := range round.Questions {
			m := shared
			if q.Fresh {
				m = begin()
			}
			got := sendPast(t, m, q, q.Data)
			for _, field := range q.Varies {
				if text, _ := got.Data[field].(string); text == "" {
					t.Errorf("%s: no %s", q, field)
				}
			}
			q.compare(t, got, used)
		}
	}
	for i, d := range meantDifferences {
		if !used[i] {
			t.Errorf("%s: %s does not differ any more (%s)", d.request, d.place, d.why)
		}
	}
}

// TestPreviousStoreKillsAgain: of an all=true without request id the build before did
// not keep what was asked for, so nothing is known to be the same request.
func TestPreviousStoreKillsAgain(t *testing.T) {
	p := previousStore(t)
	m := p.open(t)
	for _, q := range p.Replays {
		if q.Path != "revoke/again-all-bare" {
			continue
		}
		got := sendPast(t, m, q, q.Data)
		if got.Data["replayed"] != nil || fmt.Sprint(got.Data["revoked_key_ids"]) != fmt.Sprint([]any{q.Answer.Data["key_id"]}) {
			t.Errorf("%v", got.Data)
		}
		again := sendPast(t, m, q, q.Data)
		if again.Data["replayed"] != true || again.Data["version"] != got.Data["version"] {
			t.Errorf("%v, and then %v", got.Data, again.Data)
		}
		return
	}
	t.Fatal("no such request")
}

// TestPreviousStoreReplays: a request whose answer was lost in the upgrade can
// be repeated, in whatever form its values are written.
func TestPreviousStoreReplays(t *testing.T) {
	p := previousStore(t)
	m := p.open(t)
	for _, q := range p.Replays {
		if q.Path == "revoke/again-all-bare" {
			continue // see TestPreviousStoreKillsAgain
		}
		for _, data := range append([]map[string]any{q.Data}, q.Same...) {
			again := &pastRequest{As: q.As, Op: q.Op, Path: q.Path, Data: data, Answer: q.Answer}
			got := sendPast(t, m, again, data)
			again.compare(t, got, map[int]bool{})
			if got.Data["replayed"] != true || !slices.Equal(got.Warnings, q.Answer.Warnings) {
				t.Errorf("%s: replayed %v with %q, want true with %q", again, got.Data["replayed"], got.Warnings, q.Answer.Warnings)
			}
			// With other parameters it is another request.
			if id, given := data["request_id"]; given {
				other := maps.Clone(data)
				other["reason"] = "another reason"
				if a := sendPast(t, m, again, other); a.Status != 400 || !strings.HasPrefix(a.Error, "request_id: ") {
					t.Errorf("%s: request_id %v with another reason: %d %s %v", again, id, a.Status, a.Error, a.Data)
				}
			}
		}
	}
	p.unchanged(t, m.storage)
}

// unchanged fails if the storage is not byte for byte what the previous build
// left.
func (p *past) unchanged(t *testing.T, s logical.Storage) {
	t.Helper()
	left := maps.Clone(p.records)
	for name, value := range allRecords(t, s) {
		if !bytes.Equal(left[name], value) {
			t.Errorf("%s was written: %s", name, value)
		}
		delete(left, name)
	}
	for name := range left {
		t.Errorf("%s was deleted", name)
	}
}

func allRecords(t *testing.T, s logical.Storage) map[string][]byte {
	t.Helper()
	names, err := logical.CollectKeys(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		e, err := s.Get(context.Background(), name)
		if err != nil || e == nil {
			t.Fatal(name, e, err)
		}
		all[name] = e.Value
	}
	return all
}

func recordKind(name string) string {
	kind, _, _ := strings.Cut(name, "/")
	if kind == "deleted" { // a copy of a role's record
		return "role"
	}
	return kind
}

// mapsOfNames are the maps of records whose keys are not fields: names, numbers, labels.
var mapsOfNames = map[string]bool{
	"metadata": true, "fields": true, "noise": true, "secrets": true, "reporters": true,
	"versions": true, "keys": true, "ended": true, "r": true, "c": true,
}

// eachField calls fn for each field of a record. What a history entry or a
// replay quotes is not one.
func eachField(record []byte, fn func(string)) error {
	var v any
	if err := json.Unmarshal(record, &v); err != nil {
		return fmt.Errorf("decoding: %w", err)
	}
	var walk func(at, name string, v any)
	walk = func(at, name string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if name == "result" || name == "old" || name == "new" {
				return
			}
			for child, x := range v {
				if mapsOfNames[name] {
					walk(at+".*", "", x)
					continue
				}
				fn(at + "." + child)
				walk(at+"."+child, child, x)
			}
		case []any:
			for _, x := range v {
				walk(at, "", x)
			}
		}
	}
	walk("", "", v)
	return nil
}

// readable fails if the previous build would not read, or would not keep, what
// is in the storage now: of the kinds that it knows, every record has schema 1
// and no field that it does not know.
func (p *past) readable(t *testing.T, s logical.Storage) {
	t.Helper()
	for name, value := range allRecords(t, s) {
		kind := recordKind(name)
		known := p.fields[kind]
		if known == nil {
			continue // it never looks there
		}
		var head struct {
			Schema int `json:"schema"`
		}
		if err := json.Unmarshal(value, &head); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if head.Schema != 1 {
			t.Errorf("%s has schema %d without need: %s", name, head.Schema, value)
			continue
		}
		err := eachField(value, func(field string) {
			if _, meant := newFields[kind+field]; !known[field] && !meant {
				t.Errorf("%s has the field %s, which a build that reads schema 1 does not know and would drop", name, field)
			}
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
