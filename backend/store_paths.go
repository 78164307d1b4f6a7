// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Where records live. Names of roles and key ids are visible to who reads the
// server's raw storage; values are not.
const (
	configPath    = "config"
	digestPath    = "digest"
	markPath      = "mark"
	rolePrefix    = "role/"
	secretPrefix  = "secret/"
	keyPrefix     = "key/"
	issuedPrefix  = "issued/"
	duePrefix     = "due/"
	usagePrefix   = "usage/"
	archivePrefix = "archive/"
	deletedPrefix = "deleted/"
	problemPrefix = "problem/"
	jobPrefix     = "job/"
)

func rolePath(name string) string { return rolePrefix + name }

func secretPath(roleID string, n int) string { return secretPrefix + roleID + "/" + strconv.Itoa(n) }

func keyPath(id string) string { return keyPrefix + id[:2] + "/" + id }

func issuedPath(roleID, keyID string) string { return issuedPrefix + roleID + "/" + keyID }

func archivePath(roleID string, page int) string {
	return archivePrefix + roleID + "/" + strconv.Itoa(page)
}

func deletedPath(roleID string) string { return deletedPrefix + roleID }

func problemPath(name string) string { return problemPrefix + name }

const attentionPrefix = "attention/"

func attentionPath(name string) string { return attentionPrefix + name }

// isSecretPath: the plaintexts and the digest secrets are seal-wrapped.
func isSecretPath(path string) bool {
	return path == digestPath || strings.HasPrefix(path, secretPrefix)
}

const deferredPrefix = "deferred/"

// importedPath says under which digest secrets keys were imported that have not
// this engine's form. Without it such strings are malformed and cost nothing.
const importedPath = "imported"

// asidePath is what tidy has taken out of there, until its next pass saw no key of
// it either.
const asidePath = "imported-aside"

const (
	prefixesPath = "prefixes"
	// maxPrefixes bounds the record, and so the answer.
	maxPrefixes = 1000
)

// reportersPath is what the previous build remembered of those who report usage.
// Nothing is written there any more.
const reportersPath = "reporters"

const (
	tidyPath = "tidy"

	// tidyAge is how old something must be to be taken for left behind.
	tidyAge = time.Hour
	// deadKept is how long the record of a dead leased key is kept, to say how it
	// ended. One that must not come back is kept as long as history is.
	deadKept = 30 * 24 * time.Hour
	// tidyBehind is how far behind the ticks strays are looked for.
	tidyBehind = 30 * 24 * time.Hour

	// tidyPause and tidyEvery: the periodic function begins a pass this long
	// after the one before, and does a slice of it this often.
	tidyPause = 24 * time.Hour
	tidyEvery = 5 * time.Minute
	// A slice of the periodic function, and one of a pass that somebody waits for.
	slowCalls, slowTime = 400, 500 * time.Millisecond
	fastCalls, fastTime = 20000, 2 * time.Second
	// A request works for so long, whatever that takes.
	tidyWork, maxTidyCalls = 4 * time.Second, math.MaxInt

	// tidyChunk is how many names of a long list are held in memory.
	tidyChunk = 10000
)

func jobPath(id string) string { return jobPrefix + id }

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,127}$`)

// nameRule says what a role may be called.
const nameRule = "must be 1 to 128 of a-z 0-9 . _ - with a letter or digit first and no two dots in a row"

// validName: a role can have that name. Vault's storage refuses keys with two
// dots in a row, wherever they stand.
func validName(name string) bool { return nameForm.MatchString(name) && !strings.Contains(name, "..") }

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func pageNumber(name string) (int, bool) {
	n, err := strconv.Atoi(name)
	return n, err == nil && n >= 0
}
