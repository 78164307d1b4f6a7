// SPDX-License-Identifier: MPL-2.0

// Package backend is the secrets engine as Vault and OpenBao see it: paths,
// periodic function, leases and storage records. What a version of a key may
// do when is decided in internal/keyring, what an operator may write about a
// role in internal/policy.
//
// The prefix of a file tells its floor. A file uses names of its own floor and
// of lower ones only; make lint checks it. The floors, from the top:
//
//	backend.go paths.go          the mount: what it is made of, and its list of paths
//	path_*.go request_*.go       requests: schema, reading, answer. path_rotate.go is rotate/<role>
//	worker_*.go tick_*.go tidy*.go job_*.go  background work: what is due, upkeep, bulk jobs
//	role_*.go                    a role's transitions: role_tx.go begins one, role_commit.go writes it
//	key_*.go verify_*.go         single keys and leases; the verdict about a presented key
//	event_*.go                   what is told of commits: outbox, endpoints, deliveries
//	store_*.go                   storage paths, records, caches, calendar, counters
//	clock.go node.go errors.go text.go codes.go numbers.go  what everybody uses
//
// Doors: what must happen in one place only. Their names a file uses alone:
//
//	role_succeed.go      keyring.Ring.Rotate keyring.Ring.Stage
//	store_io.go          logical.Storage.Put logical.Storage.Delete
//	store_commit.go      writeAt deleteAt recordCache.committed
//	store_paths.go       recordCache.drop
//	store_look.go        policy.Policy.Effective
//
// Methods of the mount belong to the floor of their file (receiver: backend).
//
// The life of a request: HandleRequest reads and checks its fields, the path's
// handler calls one verb of a lower floor, and the verb's result becomes the
// answer. A verb that changes a role runs as one transition: under the role's
// lock the record is read, what the clock did is settled, the change is made on
// a copy, and commit writes it with one Put. Reads go through caches, which
// change after a commit only.
//
// The life of a step: the worker walks the calendar from where the last step
// stopped, looks at each role that is due (ends, activations, staging) as one
// more transition, then flushes counters, tidies and works on bulk jobs, each
// within its share of the time. The periodic call renews its mandate and does one
// step itself; where no worker runs, as in most tests, that is a longer one, the
// tick, which reads the calendar anew.
//
// A key's record and its lease name the role as it was called then. From them to the
// role, which may be called otherwise now, store_moved.go leads: roleOf, storedOf,
// lockOf.
//
// To follow one request, read path_rotate.go, role_tx.go, role_succeed.go,
// role_commit.go, store_commit.go; to follow a verification, path_verify.go,
// verify_find.go, verify_judge.go.
package backend
