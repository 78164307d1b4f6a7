// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"regexp"
	"strconv"
	"strings"
)

const (
	configPath      = "config"
	digestPath      = "digest"
	markPath        = "mark"
	importedPath    = "imported"
	asidePath       = "imported-aside"
	prefixesPath    = "prefixes"
	tidyPath        = "tidy"
	reportersPath   = "reporters"
	rolePrefix      = "role/"
	deletedPrefix   = "deleted/"
	secretPrefix    = "secret/"
	keyPrefix       = "key/"
	issuedPrefix    = "issued/"
	duePrefix       = "due/"
	attentionPrefix = "attention/"
	problemPrefix   = "problem/"
	usagePrefix     = "usage/"
	archivePrefix   = "archive/"
	deferredPrefix  = "deferred/"
	movedPrefix     = "moved/"
	jobPrefix       = "job/"
)

// place is where records of one kind live.
type place struct {
	path   string // of the one record, or, with a slash at its end, what those of all begin with
	rest   string // what follows: it is visible to who reads the server's raw storage
	holds  string
	record string // the type
	sealed bool   // seal-wrapped
	// told: store_commit.go alone writes it, and tells committed.
	told    bool
	written string // when, and in which order
	// forget makes this node read again what another one wrote at the path. Nil:
	// nothing of it is kept in memory.
	forget func(b *backend, path string)
}

// places is all that the mount keeps in storage. What is not listed cannot be
// written, and docs/storage.md has the same list.
var places = []place{
	{
		path: rolePrefix, rest: "<role>", record: "roleRecord", told: true,
		holds:   "a role: policy, versions, plan, recent history",
		written: "one write is the commit of each transition; a deletion deletes it, or marks it as deleted where its copy cannot be written",
		forget: func(b *backend, path string) {
			b.roles.drop(path)
			b.unmoved.changed(strings.TrimPrefix(path, rolePrefix))
		},
	},
	{
		path: keyPrefix, rest: "<2 characters>/<key id>", record: "keyRecord", told: true,
		holds:   "where a key points: role, version, digest; of a leased key also its own end",
		written: "before the commit of its role; of a leased key it is the commit itself. It outlives the key: what ended stays ended",
		forget:  func(b *backend, path string) { b.keys.drop(path) },
	},
	{
		path: secretPrefix, rest: "<role_id>/<version>", record: "secretRecord", sealed: true, told: true,
		holds:   "the value of a key of a static role",
		written: "after the key's record, before the commit of its role; deleted once the end of the version is committed",
		forget:  func(b *backend, path string) { b.secretCache.drop(path) },
	},
	{
		path: issuedPrefix, rest: "<role_id>/<key id>", record: "indexEntry",
		holds:   "index of the leased keys of a role",
		written: "after the key's record; deleted when its lease ends",
	},
	{
		path: deletedPrefix, rest: "<role_id>", record: "roleRecord", told: true,
		holds:   "a deleted role, for its restoration",
		written: "before the record of the role is deleted; after a restoration a stub takes its place, after a rename nothing",
	},
	{
		path: movedPrefix, rest: "<role_id>", record: "movedRecord", told: true,
		holds:   "what a role is called that came back under another name: its keys' records and leases name it as before",
		written: "before the commit of the restoration, which carries its mark; when the role is gone for good it says so, until tidy has looked for what late writes left",
		forget:  func(b *backend, path string) { b.moves.drop(path) },
	},
	{
		path: archivePrefix, rest: "<role_id>/<page>", record: "archivePage",
		holds:   "older history of a role",
		written: "before the commit that drops it from the role's record; kept for 400 days",
	},
	{
		path: duePrefix, rest: "<day>/<minute>/<shard>/<role>", record: "indexEntry",
		holds:   "the calendar: when to look at which role, or, as ~<role_id>, at which deleted one",
		written: "before the commit that needs it; deleted after the one that does not",
	},
	{
		path: attentionPrefix, rest: "<role>", record: "indexEntry",
		holds:   "index of the roles whose record shows a problem",
		written: "before the commit that makes the problem; deleted after the one that solves it",
	},
	{
		path: problemPrefix, rest: "<role>", record: "problem",
		holds:   "why the last attempt at a role failed, and when the next comes",
		written: "after a failed attempt; deleted after one that succeeds",
		forget:  func(b *backend, path string) { b.problems.told(strings.TrimPrefix(path, problemPrefix)) },
	},
	{
		path: deferredPrefix, rest: "<key id>", record: "deferredLeak",
		holds:   "a report of a found key that waits for an operator",
		written: "after the report is in the history of the role; deleted after its release",
	},
	{
		path: usagePrefix, rest: "<role_id>/<versions, or keys by their first character>", record: "usageRecord",
		holds:   "counts of use",
		written: "by the worker, with what was counted in memory",
	},
	{
		path: jobPrefix, rest: "<job>", record: "jobRecord",
		holds:   "a bulk job, and how far it has come",
		written: "when it is asked for, and after each role that it did",
		forget:  func(b *backend, _ string) { b.jobs.forget() },
	},
	{
		path: outboxPrefix, rest: "<day>/<minute>/<shard>/<commit id>", record: "outboxRecord",
		holds:   "the events of one commit, and which endpoints are still to be told; no keys",
		written: "before the commit, where an endpoint wants it; deleted when all have it, or after 7 days",
		forget:  func(b *backend, _ string) { b.outboxForeign.Store(true) },
	},
	{
		path: endpointsPath, record: "endpointsRecord", sealed: true,
		holds:   "the endpoints of events, with their secrets",
		written: "by writes of events/<name>",
		forget:  func(b *backend, _ string) { b.endpoints.forget() },
	},
	{
		path: endpointsPrefix, rest: "<endpoint id>", record: "endpointState",
		holds:   "how deliveries to an endpoint go",
		written: "by the worker, when an outage begins or ends, and once a minute at most where something was given up",
		forget:  func(b *backend, _ string) { b.outboxForeign.Store(true) },
	},
	{
		path: configPath, record: "configRecord",
		holds:   "the config of the mount",
		written: "by writes of config",
		forget:  func(b *backend, _ string) { b.configs.forget() },
	},
	{
		path: digestPath, record: "digestRecord", sealed: true,
		holds:   "the secrets under which keys are digested",
		written: "before the first key of the mount, and by config/rotate-digest",
		forget:  func(b *backend, _ string) { b.digestSecrets.forget() },
	},
	{
		path: importedPath, record: "importedRecord",
		holds:   "under which of the digest secrets keys of other forms were imported",
		written: "before the first such key is",
		forget:  func(b *backend, _ string) { b.imported.forget() },
	},
	{
		path: asidePath, record: "importedRecord",
		holds:   "what tidy has taken out of imported, until its next pass saw no key of it either",
		written: "at the end of a pass, before imported",
		forget:  func(b *backend, _ string) { b.aside.forget() },
	},
	{
		path: prefixesPath, record: "prefixRecord",
		holds:   "the prefixes that keys of the mount have, or had",
		written: "before the first key with a prefix counts",
		forget:  func(b *backend, _ string) { b.prefixes.forget() },
	},
	{
		path: markPath, record: "markRecord",
		holds:   "the latest time seen, how far the calendar is done with, and a random id of the instance that wrote it",
		written: "once a minute, and at the beginning of each step that acts",
		forget:  func(b *backend, _ string) { b.mark.forget() },
	},
	{
		path: tidyPath, record: "tidyRecord",
		holds:   "how far the pass over the storage has come, and, by its schema, whether roles were renamed",
		written: "after each part of a pass, and before the first rename",
		forget:  func(b *backend, _ string) { b.renames.forget() },
	},
	{
		path: reportersPath, record: "reportersRecord",
		holds:   "who reported use, of the previous build",
		written: "no more; tidy deletes it",
	},
}

// indexEntry is a record that says all by its path.
type indexEntry struct {
	Schema int `json:"schema"`
}

// placeOf is the place that the path belongs to; nil if it belongs to none.
func placeOf(path string) *place {
	for i := range places {
		p := &places[i]
		if prefix := strings.HasSuffix(p.path, "/"); path == p.path && !prefix || prefix && strings.HasPrefix(path, p.path) {
			return p
		}
	}
	return nil
}

// sealedPlaces are the places whose records servers wrap with their seal.
func sealedPlaces() []string {
	var paths []string
	for i := range places {
		if places[i].sealed {
			paths = append(paths, places[i].path)
		}
	}
	return paths
}

// invalidate forgets what another node wrote. The key is the path in storage.
func (b *backend) invalidate(_ context.Context, key string) {
	if p := placeOf(key); p != nil && p.forget != nil {
		p.forget(b, key)
	}
}

// overtaken forgets a role's record that storage turned out to be ahead of.
func (b *backend) overtaken(name string) { b.roles.drop(rolePath(name)) }

// mistaken forgets the plaintext of a version that turned out to be another's, or gone.
func (b *backend) mistaken(roleID string, n int) { b.secretCache.drop(secretPath(roleID, n)) }

func rolePath(name string) string { return rolePrefix + name }

func deletedPath(roleID string) string { return deletedPrefix + roleID }

func movedPath(roleID string) string { return movedPrefix + roleID }

func secretPath(roleID string, n int) string { return secretPrefix + roleID + "/" + strconv.Itoa(n) }

func keyPath(id string) string { return keyPrefix + id[:2] + "/" + id }

func issuedPath(roleID, keyID string) string { return issuedPrefix + roleID + "/" + keyID }

func archivePath(roleID string, page int) string {
	return archivePrefix + roleID + "/" + strconv.Itoa(page)
}

func problemPath(name string) string { return problemPrefix + name }

func attentionPath(name string) string { return attentionPrefix + name }

func deferredPath(keyID string) string { return deferredPrefix + keyID }

func jobPath(id string) string { return jobPrefix + id }

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,127}$`)

// nameRule says what a role may be called.
const nameRule = "must be 1 to 128 of a-z 0-9 . _ - with a letter or digit first and no two dots in a row"

// validName reports whether a role can have that name. Vault's storage refuses keys
// with two dots in a row, wherever they stand.
func validName(name string) bool { return nameForm.MatchString(name) && !strings.Contains(name, "..") }

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func pageNumber(name string) (int, bool) {
	n, err := strconv.Atoi(name)
	return n, err == nil && n >= 0
}
