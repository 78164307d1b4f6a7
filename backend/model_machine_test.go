// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"pgregory.net/rapid"
)

// machine drives a mount and the model through the same operations of several
// actors.
type machine struct {
	m     *testMount
	roles map[string]*modelRole
	gone  []*modelRole // their names are in use by others
}

var modelNames = []string{"a", "b"}

// TestAgainstTheModel does random operations, by the API, with a simulated clock.
func TestAgainstTheModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := &machine{m: mountOn(withoutSchemas{t}, &logical.InmemStorage{}, newFakeClock()), roles: map[string]*modelRole{}}
		rt.Repeat(map[string]func(*rapid.T){
			"time passes": w.pass, "tick": w.tick, "restart": w.restart,
			"create": w.create, "delete": w.remove, "restore": w.restore, "rename": w.rename, "disable": w.disable,
			"rotate": w.rotate, "rotate more": w.rotate, "promote": w.promote, "rollback": w.rollback, "set an end": w.setEnd, "revoke": w.revoke, "revoke all": w.revokeAll,
			"": w.compare,
		})
	})
}

func (w *machine) now() time.Time { return w.m.now() }

func (w *machine) pass(t *rapid.T) {
	w.m.clock.advance(rapid.SampledFrom([]time.Duration{
		time.Second, 10 * time.Second, time.Minute, 59 * time.Minute, time.Hour, 10 * time.Hour, 25 * time.Hour, 4 * 24 * time.Hour, 7 * 24 * time.Hour,
	}).Draw(t, "passes"))
}

func (w *machine) tick(*rapid.T)    { w.m.tick() }
func (w *machine) restart(*rapid.T) { w.m = w.m.restart() }

// role draws a role, there or not.
func (w *machine) role(t *rapid.T) (string, *modelRole) {
	name := rapid.SampledFrom(modelNames).Draw(t, "role")
	if r := w.roles[name]; r != nil && r.deleted.IsZero() {
		return name, r
	}
	return name, nil
}

// as is one of several callers.
func (w *machine) as(t *rapid.T) {
	who := rapid.SampledFrom([]string{"ann", "bob", "cid"}).Draw(t, "caller")
	w.m.request.ClientTokenAccessor, w.m.request.DisplayName = "accessor-"+who, who
}

// ask sends the request. refused says why it has to be refused; empty: it must
// succeed.
func (w *machine) ask(t *rapid.T, op logical.Operation, path string, data map[string]any, refused string) map[string]any {
	w.as(t)
	resp, err := w.m.send(op, path, data)
	if (err != nil) != (refused != "") {
		t.Fatalf("%s %s %v: %v %v; the model refuses it because: %q", op, path, data, err, resp, refused)
	}
	if status, text := httpStatus(resp, err); err != nil && status >= 500 {
		t.Fatalf("%s %s %v: %d %s", op, path, data, status, text)
	}
	if resp == nil {
		return nil
	}
	return resp.Data
}

func (w *machine) create(t *rapid.T) {
	name, r := w.role(t)
	if r != nil {
		return
	}
	if old := w.roles[name]; old != nil {
		w.gone = append(w.gone, old)
	}
	r = &modelRole{
		ttl:   rapid.SampledFrom([]time.Duration{0, 0, 30 * time.Hour, 9 * 24 * time.Hour}).Draw(t, "ttl"),
		grace: rapid.SampledFrom([]time.Duration{0, time.Hour, 24 * time.Hour}).Draw(t, "grace"),
	}
	w.ask(t, logical.UpdateOperation, "roles/"+name, map[string]any{
		"rotation_period": 0, "ttl": int(r.ttl.Seconds()), "grace_period": int(r.grace.Seconds()),
	}, "")
	r.id = w.m.read("roles/" + name)["role_id"].(string)
	r.rotate(w.now(), w.now(), false, r.grace)
	w.roles[name] = r
}

func (w *machine) remove(t *rapid.T) {
	if rapid.IntRange(0, 2).Draw(t, "rarely") > 0 {
		return
	}
	name, r := w.role(t)
	if r == nil {
		w.ask(t, logical.DeleteOperation, "roles/"+name, nil, "")
		return
	}
	r.commit(w.now())
	w.ask(t, logical.DeleteOperation, "roles/"+name, nil, "")
	r.deleted = w.now()
}

func (w *machine) restore(t *rapid.T) {
	all := append([]*modelRole(nil), w.gone...)
	for _, name := range modelNames {
		if r := w.roles[name]; r != nil {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		return
	}
	i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
	r, refused := all[i], ""
	switch {
	case i < len(w.gone):
		refused = "its name is in use, or it is gone"
		if live := w.roles[w.nameOf(r)]; live == nil || !live.deleted.IsZero() {
			return // which of the two came first is another story
		}
	case !r.deleted.IsZero() && w.now().Sub(r.deleted) >= 24*time.Hour:
		refused = "too late"
	case r.deleted.IsZero():
		return // it is there: 200 or 404, by whether it was ever deleted
	}
	w.ask(t, logical.UpdateOperation, "restore/"+r.id, nil, refused)
	if refused == "" {
		r.deleted = time.Time{}
		r.commit(w.now())
	}
}

// rename restores a deleted role under any name.
func (w *machine) rename(t *rapid.T) {
	all := append([]*modelRole(nil), w.gone...)
	for _, name := range modelNames {
		if r := w.roles[name]; r != nil && !r.deleted.IsZero() {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		return
	}
	r := rapid.SampledFrom(all).Draw(t, "which")
	name := rapid.SampledFrom(modelNames).Draw(t, "name")
	force := rapid.Bool().Draw(t, "force")
	holder, refused := w.roles[name], ""
	switch {
	case w.now().Sub(r.deleted) >= 24*time.Hour:
		refused = "too late"
	case holder != nil && holder.deleted.IsZero():
		refused = "the name is in use, by a role whose keys were verified"
	}
	w.ask(t, logical.UpdateOperation, "restore/"+r.id, map[string]any{"name": name, "force": force}, refused)
	if refused != "" {
		return
	}
	w.gone = slices.DeleteFunc(w.gone, func(other *modelRole) bool { return other == r })
	for other, there := range w.roles {
		if there == r {
			delete(w.roles, other)
		}
	}
	if holder != nil && holder != r {
		w.gone = append(w.gone, holder)
	}
	w.roles[name] = r
	r.deleted = time.Time{}
	r.commit(w.now())
}

// nameOf is the name that a role had.
func (w *machine) nameOf(r *modelRole) string {
	for _, name := range modelNames {
		if w.roles[name] == r {
			return name
		}
	}
	rec, err := getRecord[roleRecord](w.m.t.Context(), w.m.storage, deletedPath(r.id))
	if err != nil || rec == nil {
		return modelNames[0]
	}
	return rec.Name
}

func (w *machine) disable(t *rapid.T) {
	name, r := w.role(t)
	if r == nil {
		return
	}
	want := rapid.Bool().Draw(t, "disabled")
	w.ask(t, logical.UpdateOperation, "roles/"+name, map[string]any{"disabled": want}, "")
	if want != r.disabled {
		r.commit(w.now())
	}
	r.disabled = want
}

func (w *machine) drawGrace(t *rapid.T, r *modelRole, data map[string]any) time.Duration {
	if rapid.Bool().Draw(t, "own grace") {
		g := rapid.SampledFrom([]time.Duration{0, 20 * time.Second, time.Hour, 50 * time.Hour}).Draw(t, "grace")
		data["grace_period"] = int(g.Seconds())
		return g
	}
	return r.grace
}

func (w *machine) rotate(t *rapid.T) {
	name, r := w.role(t)
	data := map[string]any{}
	if r == nil {
		w.ask(t, logical.UpdateOperation, "rotate/"+name, data, "no role")
		return
	}
	now := w.now()
	grace, at, held := w.drawGrace(t, r, data), now, false
	switch rapid.IntRange(0, 3).Draw(t, "when") {
	case 0:
		held, data["stage"] = true, true
	case 1:
		ahead := rapid.SampledFrom([]time.Duration{time.Minute, 2 * time.Hour, 40 * time.Hour, 8 * 24 * time.Hour}).Draw(t, "ahead")
		at, data["activate_at"] = now.Add(ahead), ahead.String()
	}
	if r.live(now) >= 9 {
		return // room is another story
	}
	refused := "one is pending"
	if !held || r.in("pending", now) == nil {
		refused = r.rotate(now, at, held, grace)
	}
	got := w.ask(t, logical.UpdateOperation, "rotate/"+name, data, refused)
	if refused == "" && number(w.m.t, got["version"]) != int64(len(r.versions)) {
		t.Fatalf("version %v, want %d", got["version"], len(r.versions))
	}
}

func (w *machine) promote(t *rapid.T) {
	name, r := w.role(t)
	if r == nil {
		return
	}
	data := map[string]any{}
	if p := r.in("pending", w.now()); p != nil {
		data["version"] = p.n // without it the request may be taken for a repetition of one just before
	}
	grace := w.drawGrace(t, r, data)
	w.ask(t, logical.UpdateOperation, "promote/"+name, data, r.promote(w.now(), grace))
}

func (w *machine) rollback(t *rapid.T) {
	name, r := w.role(t)
	if r == nil {
		return
	}
	data := map[string]any{}
	grace := w.drawGrace(t, r, data)
	w.ask(t, logical.UpdateOperation, "rollback/"+name, data, r.rollback(w.now(), grace))
}

func (w *machine) setEnd(t *rapid.T) {
	name, r := w.role(t)
	if r == nil || len(r.versions) == 0 {
		return
	}
	v := r.versions[rapid.IntRange(max(1, len(r.versions)-4), len(r.versions)).Draw(t, "version")-1]
	d := rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour, 20 * time.Hour, 5 * 24 * time.Hour}).Draw(t, "end in")
	data := map[string]any{"version": v.n, "valid_until": int(d / time.Second)}
	w.ask(t, logical.UpdateOperation, "grace/"+name, data, r.setEnd(v, w.now(), w.now().Add(d)))
}

func (w *machine) revoke(t *rapid.T) {
	name, r := w.role(t)
	if r == nil || len(r.versions) == 0 {
		return
	}
	n := rapid.IntRange(max(1, len(r.versions)-6), len(r.versions)).Draw(t, "version")
	replace := rapid.IntRange(0, 3).Draw(t, "replace") > 0
	r.revoke(w.now(), replace, n)
	w.ask(t, logical.UpdateOperation, "revoke/"+name, map[string]any{"version": n, "rotate": replace}, "")
}

func (w *machine) revokeAll(t *rapid.T) {
	name, r := w.role(t)
	if r == nil || rapid.IntRange(0, 3).Draw(t, "rarely") > 0 {
		return
	}
	w.m.clock.advance(6 * time.Minute) // beyond what repeats the answer before
	var live []int
	for _, v := range r.versions {
		switch r.state(v, w.now()) {
		case "pending", "current", "previous", "withdrawn":
			live = append(live, v.n)
		}
	}
	r.revoke(w.now(), true, live...)
	w.ask(t, logical.UpdateOperation, "revoke/"+name, map[string]any{"all": true}, "")
}

// compare looks at everything that can be seen from outside.
func (w *machine) compare(t *rapid.T) {
	now := w.now()
	for _, name := range modelNames {
		if r := w.roles[name]; r != nil {
			w.compareRole(t, name, r, now)
		}
	}
	for _, r := range w.gone {
		for _, v := range r.versions {
			w.compareKey(t, r, v, "NOT_FOUND")
		}
	}
}

func (w *machine) compareRole(t *rapid.T, name string, r *modelRole, now time.Time) {
	if !r.deleted.IsZero() {
		if resp, err := w.m.send(logical.ReadOperation, "creds/"+name, nil); resp != nil || err != nil {
			t.Fatalf("a deleted role: %v %v", resp, err)
		}
	} else {
		w.compareStates(t, name, r, now)
	}
	for _, v := range r.versions {
		w.compareKey(t, r, v, r.code(v, now))
	}
}

func (w *machine) compareStates(t *rapid.T, name string, r *modelRole, now time.Time) {
	for _, shown := range w.m.read("status/" + name)["versions"].([]any) {
		got := shown.(map[string]any)
		v := r.versions[got["version"].(int)-1]
		if want := r.state(v, now); got["state"] != want {
			t.Fatalf("role %s version %d is %v, the model says %s\n%v", name, v.n, got, want, r)
		}
	}
	cur := r.in("current", now)
	resp, err := w.m.send(logical.ReadOperation, "creds/"+name, nil)
	if cur == nil {
		if status, _ := httpStatus(resp, err); status != 400 {
			t.Fatalf("creds/%s: %v %v, the model has no current version\n%v", name, resp, err, r)
		}
	} else {
		if err != nil || resp.Data["version"] != cur.n {
			t.Fatalf("creds/%s: %v %v, the model says version %d\n%v", name, resp, err, cur.n, r)
		}
		cur.key = resp.Data["api_key"].(string)
	}
	for _, which := range []string{"pending", "previous"} {
		v := r.in(which, now)
		resp, err := w.m.send(logical.ReadOperation, "creds/"+name+"/"+which, nil)
		if isGone := v == nil && resp == nil && err != nil; isGone {
			// After a rollback the absence says where the version is.
			if status, _ := httpStatus(resp, err); status != 404 || which != "previous" {
				t.Fatalf("creds/%s/%s: %d %v\n%v", name, which, status, err, r)
			}
			continue
		}
		if err != nil || (resp == nil) != (v == nil) || v != nil && resp.Data["version"] != v.n {
			t.Fatalf("creds/%s/%s: %v %v\n%v", name, which, resp, err, r)
		}
		if v != nil {
			v.key = resp.Data["api_key"].(string)
		}
	}
}

func (w *machine) compareKey(t *rapid.T, r *modelRole, v *modelVersion, want string) {
	if v.key == "" {
		return
	}
	if got := w.m.write("verify", map[string]any{"key": v.key}); got["code"] != want {
		t.Fatalf("the key of version %d is %v, the model says %s\n%s", v.n, got, want, fmt.Sprint(r))
	}
}
