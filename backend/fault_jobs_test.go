// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// TestJobIsMadeOverAHiccup: what fails once while a job that ends no keys is made is
// read again, unless the caller has gone meanwhile.
func TestJobIsMadeOverAHiccup(t *testing.T) {
	first := newMount(t)
	first.write("roles/a", nil)
	first.storeJobs(2, bulkRotate, jobRunning)
	start := dump(t, first.storage)
	enable := map[string]any{"action": "enable", "roles": "a", "dry_run": false, "request_id": "incident-31"}
	reads := 0
	for n := 1; n <= 3; n++ { // the list, and each of both
		p := newProbe(copyStorage(t, start))
		m := mountOn(t, p, newFakeClock())
		m.read("roles/a")
		p.reset()
		m.write("bulk", enable)
		log := append([]string(nil), p.log...)
		at := 0
		for i, call := range log {
			if strings.HasSuffix(call, " "+jobPrefix) || strings.HasPrefix(call, "get "+jobPrefix) {
				if at++; at == n {
					at = i + 1
					break
				}
			}
		}
		m = mountOn(t, p, newFakeClock())
		m.read("roles/a")
		p.arm(at, faultFail)
		m.write("bulk", enable)
		if !p.hit() {
			t.Fatal("nothing failed")
		}
		reads++

		m = mountOn(t, &logical.InmemStorage{}, newFakeClock())
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		s := &hookedStorage{Storage: copyStorage(t, start), hook: func(call string) error {
			if call != log[at-1] {
				return nil
			}
			calls++
			cancel()
			return errStorage
		}}
		req := m.request
		req.Operation, req.Path, req.Data, req.Storage = logical.UpdateOperation, "bulk", enable, s
		if _, err := m.HandleRequest(ctx, &req); err == nil || calls != 1 {
			t.Errorf("%s was made %d times for a caller who had gone: %v", log[at-1], calls, err)
		}
		cancel()
	}
	if reads != 3 {
		t.Errorf("%d reads failed", reads)
	}
}

// hookedStorage asks about each read before it is made.
type hookedStorage struct {
	logical.Storage

	hook func(call string) error
}

func (s *hookedStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := s.hook("get " + key); err != nil {
		return nil, err
	}
	return s.Storage.Get(context.WithoutCancel(ctx), key)
}

func (s *hookedStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.hook("list " + prefix); err != nil {
		return nil, err
	}
	return s.Storage.List(context.WithoutCancel(ctx), prefix)
}

// TestJobPassesOverStrayIndexEntries: one without a key's record, and one that leads
// to the key of another role.
func TestJobPassesOverStrayIndexEntries(t *testing.T) {
	m := newMount(t)
	mine := m.issueTo("d", "leaver", 2)
	other := m.issueTo("e", "leaver", 1)
	m.write("roles/e", map[string]any{"owner": "others"})
	role := m.read("roles/d")["role_id"].(string)
	for _, id := range []string{"aaaaaaaaaaaa", m.idOf(other[0])} {
		plant(t, m.storage, issuedPath(role, id), &indexEntry{Schema: 1})
	}
	r := &jobRun{b: m.backend, s: m.storage, job: &jobRecord{ID: "job", Action: bulkRevoke, State: jobRunning}}
	rec, err := getRecord[roleRecord](t.Context(), m.storage, rolePath("d"))
	if err != nil || rec == nil {
		t.Fatal(rec, err)
	}
	if err := r.revokeIssued(t.Context(), t.Context(), rec, "leaver"); err != nil || r.job.Keys != 2 || r.job.Inside != nil {
		t.Errorf("%d keys were revoked: %v", r.job.Keys, err)
	}
	for _, key := range mine {
		m.expectVerdict(key, "REVOKED")
	}
	m.expectVerdict(other[0], "VALID")
	r.dirty = false // as if it was saved
	r.unlistSpent(t.Context())
	if left := m.under(issuedPrefix + role + "/"); len(left) != 2 {
		t.Errorf("of the index is left: %v", left)
	}
}

// TestJobsLeaveAHistory in each role: what was done, and why.
func TestJobsLeaveAHistory(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	m.startJob("action", "disable", "roles", "a", "reason", "because")
	m.run(time.Minute)
	entries, _ := m.entriesOf("history/a", nil)
	last := entries[0]
	if last["kind"] != string(eventRoleUpdated) || last["reason"] != "because" || !strings.Contains(fmt.Sprint(last), "disabled") {
		t.Errorf("the last entry is %v", last)
	}
}

// TestEndedJobsAreKeptForTheirTime, to the second, and are then removed.
func TestEndedJobsAreKeptForTheirTime(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	job := m.startJob("action", "disable", "roles", "a")
	m.run(time.Minute)
	ended := m.storedJob(job).Finished
	m.clock.set(ended.Add(30 * 24 * time.Hour))
	m.tick()
	m.expectJob(job, "done", 1, 1, 0, 0)
	m.clock.advance(time.Second)
	m.tick()
	if left := m.under(jobPrefix); len(left) != 0 {
		t.Errorf("jobs are left: %v", left)
	}
	if _, err := m.do(logical.ReadOperation, "bulk/"+job, nil); err != nil {
		t.Error(err)
	}
}

// TestJobPaysHeedToRefusals: a role that refuses to be rotated is a failure of the
// job, and is left as it is.
func TestJobPaysHeedToRefusals(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 0, "grace_period": "24h"})
	for {
		if resp, err := m.do(logical.UpdateOperation, "rotate/a", nil); err != nil || resp.IsError() {
			break
		}
	}
	newest := m.newestVersion("a")
	job := m.startJob("action", "rotate", "roles", "a")
	m.run(time.Minute)
	m.expectJob(job, "done", 1, 0, 0, 1)
	m.expectVersion(newest, "a")
	if said := fmt.Sprint(m.read("bulk/" + job)["failures"]); !strings.Contains(said, "revoke one") {
		t.Errorf("the failure is told as %s", said)
	}
}

// TestJobThatIsRemovedMeanwhile is not written again, and stops.
func TestJobThatIsRemovedMeanwhile(t *testing.T) {
	m, s := slowMount(t)
	names := m.makeRoles("r", 20, nil)
	job := m.startJob("action", "rotate", "name_prefix", "r", "pace", 0)
	writes := 0
	s.before = func(op, path string) {
		if op == "put" && strings.HasPrefix(path, rolePrefix) {
			if writes++; writes == 7 {
				if err := s.Storage.Delete(context.Background(), jobPath(job)); err != nil {
					t.Error(err)
				}
			}
		}
	}
	m.minute()
	m.minute()
	s.before = nil
	if left := m.under(jobPrefix); len(left) != 0 || writes != 7 {
		t.Errorf("%d roles were rotated, and of the job is left %v", writes, left)
	}
	m.expectVersion(1, names[7:]...)
}
