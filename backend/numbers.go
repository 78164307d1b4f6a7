// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/metric"
)

// numbers are what this node has counted of this mount since its start, and the names
// of what is read at each scrape. Several mounts share a process, so each has a registry
// of its own, and none tells of the process.
type numbers struct {
	registry *prometheus.Registry
	set      *metric.Set

	verdicts      [codeCount]prometheus.Counter
	verifySeconds prometheus.Observer
	timelines     prometheus.Counter
	refusals      *prometheus.CounterVec

	rotations     *prometheus.CounterVec
	rotationDelay prometheus.Observer
	extensions    *prometheus.CounterVec
	revocations   *prometheus.CounterVec
	reports       *prometheus.CounterVec
	// failed are the roles, by id, whose last rotation failed on this node.
	failed *lru.Cache[string, struct{}]

	decisions     *prometheus.CounterVec
	feedDelay     prometheus.Observer
	deliverySpent prometheus.Observer

	steps    *prometheus.CounterVec
	lastStep atomic.Int64 // Unix nanoseconds; zero: none
	queue    atomic.Pointer[queueState]

	storageCalls, storageErrors *prometheus.CounterVec
	storageSeconds              *prometheus.HistogramVec

	read reads
}

// reads are the metrics whose values are looked up at a scrape.
type reads struct {
	info, writer, caches, waiters, lastStep                            *metric.Read
	fleetRead, queue, due, overdue, problems, listed, mount, jobs      *metric.Read
	outboxEvents, outboxOldest, deliveries, dropped, failing, stopped  *metric.Read
	roleSince, roleNext, rolePreviousEnds, rolePreviousUsed, roleOmits *metric.Read
}

// queueState is what waits for the worker, as of the end of its last step.
type queueState struct {
	roles, due int
	// overdue does not count roles at which work fails: those are in the index of
	// problems.
	overdue int
}

// failedKept is how many roles whose rotation failed are remembered.
const failedKept = 10_000

// What came of an attempt to make a successor.
const (
	rotatedFirst   = "first_try"
	rotatedRetried = "retried"
	rotatedFailed  = "failed"
)

// extendedByUse is the cause of a grace that is prolonged since the previous version is
// in use.
const extendedByUse = "use"

// Who wanted a successor: the causes of commits, and bulk jobs apart from requests.
const causeBulk = "bulk"

// Labels.
var (
	endpointLabel = metric.Label{Name: "endpoint", Bound: "the endpoint's name; at most 16"}
	roleLabel     = metric.Label{Name: "role", Bound: "the role's name; at most 1,000, and only with `config metrics_role_labels`"}
	operations    = metric.Label{Name: "operation", Values: []string{"get", "put", "delete", "list"}}
)

// Bounds of histograms, in seconds.
var (
	verifyBounds   = []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 1e-4, 2.5e-4, 1e-3, 5e-3, 0.025, 0.1, 0.5, 2.5}
	storageBounds  = []float64{1e-5, 1e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.1, 0.5, 2.5, 10}
	lagBounds      = []float64{1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 24 * 3600}
	feedBounds     = []float64{0.1, 0.25, 0.5, 0.75, 1, 2, 5, 10}
	deliveryBounds = []float64{0.005, 0.025, 0.1, 0.25, 1, 2.5, 5, 10}
)

func newNumbers() *numbers {
	registry := prometheus.NewRegistry()
	set := metric.NewSet("apikeys_", registry)
	failed, err := lru.New[string, struct{}](failedKept)
	if err != nil {
		panic(err) // only for a size below one
	}
	n := &numbers{registry: registry, set: set, failed: failed}

	n.read.info = set.ReadGauge("instance_info", "1. Which process of which mount has counted: every node counts for itself, since `started`.",
		metric.Label{Name: "version", Bound: "of the plugin"}, metric.Label{Name: "process", Bound: "a random id"},
		metric.Label{Name: "mount", Bound: "the mount's id"}, metric.Label{Name: "started", Bound: "RFC 3339"})
	n.read.writer = set.ReadGauge("writer", "1 on the node that writes. Only there the fleet's numbers are.")

	codes := metric.Label{Name: "code", Values: codeNames[:]}
	verdicts := set.Counter("verify_total", "Verdicts. EXPIRED, RETIRED and REVOKED are given only where the secret matched: somebody uses a key that has ended.", codes)
	for i := range n.verdicts {
		n.verdicts[i] = verdicts.WithLabelValues(codeNames[i])
	}
	n.verifySeconds = set.Histogram("verify_seconds", "How long it took to reach a verdict in the engine, of each key of a batch.", verifyBounds).WithLabelValues()
	n.timelines = set.Counter("timelines_total", "Timelines of keys that edges have asked for.").WithLabelValues()
	n.refusals = set.Counter("rotation_refusals_total", "Keys that were refused because a rotation had ended them: what rotations cost consumers. Keys that were found in the open do not count. Edges count theirs as RETIRED. "+
		"grace: whether another previous version of the role was in its grace.",
		metric.Label{Name: "reason", Values: []string{string(keyring.GraceEnded), string(keyring.Superseded), string(keyring.RolledBack), string(keyring.Lapsed)}},
		metric.Label{Name: "grace", Values: []string{"running", "over"}})

	n.rotations = set.Counter("rotations_total", "Successors that were made or could not be, by who wanted them. retried: an attempt had failed before. Refused requests do not count.",
		metric.Label{Name: "cause", Values: []string{causePeriodic, causeRequest, causeBulk, causeLeak}},
		metric.Label{Name: "result", Values: []string{rotatedFirst, rotatedRetried, rotatedFailed}})
	n.rotationDelay = set.Histogram("rotation_delay_seconds", "How far behind the plan the automatic rotation took effect; 0 where it was staged in time.", lagBounds).WithLabelValues()
	n.extensions = set.Counter("grace_extensions_total", "Graces that were prolonged: automatically, since the previous version was still in use, or by a request.",
		metric.Label{Name: "cause", Values: []string{extendedByUse, causeRequest}})
	n.revocations = set.Counter("revocations_total", "Versions and dynamic keys that were revoked. The ends of leases do not count.", metric.Label{Name: "reason_code", Values: []string{
		string(keyring.Unspecified), string(keyring.Leaked), string(keyring.Offboarded), string(keyring.Superseded), string(keyring.Abuse), string(keyring.Policy),
	}})
	n.reports = set.Counter("reports_total", "Keys that were reported as found in the open, by what came of it.", metric.Label{Name: "result", Values: leakOrder})

	n.read.fleetRead = set.ReadGauge("fleet_read_timestamp_seconds", "When the numbers from the index of problems, and of roles, were read.")
	n.read.queue = set.ReadGauge("worker_queue_roles", "Roles that wait for the worker.")
	n.read.due = set.ReadGauge("roles_due", "Roles whose rotation is due and waits.")
	n.read.overdue = set.ReadGauge("roles_overdue", "Roles whose rotation is more than 5 minutes late, but for those that fail: `problem_roles` has these.")
	n.read.problems = set.ReadGauge("problem_roles", "Roles that somebody should look at, by what is wrong.", metric.Label{Name: "kind", Values: roleTroubles})
	n.read.listed = set.ReadGauge("problems_listed", "Roles in the index of problems. Some may be solved.")
	n.read.mount = set.ReadGauge("mount_problem", "1 if something is wrong with the mount, and not with one role.", metric.Label{Name: "kind", Values: []string{troubleClock, troubleRival}})
	n.read.jobs = set.ReadGauge("jobs", "Bulk jobs that are not done.")
	n.steps = set.Counter("worker_steps_total", "Steps of the worker. cut_short: time was over, and the next one goes on.", metric.Label{Name: "result", Values: []string{"ok", "cut_short", "failed"}})
	n.read.lastStep = set.ReadGauge("worker_last_step_timestamp_seconds", "When the worker last ended a step; absent before the first one.")

	n.read.outboxEvents = set.ReadGauge("outbox_events", "Events that wait for an endpoint, as far as this node has read the outbox.", endpointLabel)
	n.read.outboxOldest = set.ReadGauge("outbox_oldest_seconds", "How long the oldest of them has waited; 0 without any.", endpointLabel)
	n.read.deliveries = set.ReadCounter("deliveries_total", "Attempts to deliver a message.", endpointLabel, metric.Label{Name: "result", Values: []string{"delivered", "failed"}})
	n.read.dropped = set.ReadCounter("events_dropped_total", "Events that an endpoint did not get: it refused them while it took others (failed), or they waited for 7 days (expired). Since the endpoint was made.",
		endpointLabel, metric.Label{Name: "reason", Values: []string{"failed", "expired"}})
	n.read.failing = set.ReadGauge("endpoint_failing", "1 while the last attempt to deliver has failed.", endpointLabel)
	n.read.stopped = set.ReadGauge("endpoint_stopped", "1 if nothing is sent to the endpoint any more, because it failed for days.", endpointLabel)
	n.deliverySpent = set.Histogram("delivery_seconds", "How long attempts to deliver took.", deliveryBounds).WithLabelValues()

	n.decisions = set.Counter("feed_decisions_total", "Decisions that were told to edges. closing: something ended or was narrowed.", metric.Label{Name: "closing", Values: []string{"true", "false"}})
	n.feedDelay = set.Histogram("feed_delay_seconds", "How long a decision took until an edge was answered: of each answer that of the oldest. Edges measure the rest of the way.", feedBounds).WithLabelValues()
	n.read.waiters = set.ReadGauge("feed_waiters", "Requests that wait for decisions: one of each edge.")

	n.read.caches = set.ReadCounter("cache_requests_total", "Looks into the caches of records.",
		metric.Label{Name: "cache", Values: []string{"roles", "keys", "secrets", "moves"}}, metric.Label{Name: "result", Values: []string{"hit", "miss"}})
	n.storageCalls = set.Counter("storage_calls_total", "Calls to storage.", operations)
	n.storageErrors = set.Counter("storage_errors_total", "Calls to storage that failed. Writes that are refused because another node writes do not count.", operations)
	n.storageSeconds = set.Histogram("storage_seconds", "How long calls to storage took.", storageBounds, operations)

	n.read.roleSince = set.ReadGauge("role_current_since_timestamp_seconds", "Since when the current version is.", roleLabel)
	n.read.roleNext = set.ReadGauge("role_next_rotation_timestamp_seconds", "When the next version becomes current; absent where none is planned.", roleLabel)
	n.read.rolePreviousEnds = set.ReadGauge("role_previous_ends_timestamp_seconds", "When the previous version ends; absent without one.", roleLabel)
	n.read.rolePreviousUsed = set.ReadGauge("role_previous_used_timestamp_seconds", "When the previous version was last used after its successor had taken over; absent if it was not.", roleLabel)
	n.read.roleOmits = set.ReadGauge("role_labels_omitted", "Roles that have no numbers of their own, because there are more than 1,000.")
	return n
}

// verified counts a verdict.
func (n *numbers) verified(c code, took time.Duration) {
	n.verdicts[c].Inc()
	n.verifySeconds.Observe(took.Seconds())
}

// revoked counts a version, or a dynamic key, that was revoked.
func (n *numbers) revoked(code keyring.Reason) {
	n.revocations.WithLabelValues(string(cmp.Or(code, keyring.Unspecified))).Inc()
}

// rotated counts a successor that was made, or could not be. before: an attempt is known
// to have failed.
func (n *numbers) rotated(cause, roleID string, made, before bool) {
	result := rotatedFailed
	switch {
	case !made:
		n.failed.Add(roleID, struct{}{})
	case n.failed.Remove(roleID) || before:
		result = rotatedRetried
	default:
		result = rotatedFirst
	}
	n.rotations.WithLabelValues(cause, result).Inc()
}
