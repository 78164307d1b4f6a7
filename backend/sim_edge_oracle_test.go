// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

// simKey is a key that somebody has.
type simKey struct {
	secret, id, roleID string
	imported           bool
	// words are what the engine says to edges that know all roles, and to those that
	// know one.
	words map[string]*simWord
}

// simWord is what the engine said of a key, when.
type simWord struct {
	said []said
	// revived: storage was restored, and brings it back. What an edge was told of its
	// end before is no mistake.
	revived bool
}

func (s *simWord) last() said { return s.said[len(s.said)-1] }

type said struct {
	at    time.Time
	valid bool
	word  string
}

// have takes a key that somebody was given.
func (w *edgeWorld) have(secret, id string) {
	for _, k := range w.keys {
		if k.id == id {
			return
		}
	}
	k := &simKey{secret: secret, id: id, imported: strings.HasPrefix(secret, "simulated-"), words: map[string]*simWord{"": {}, w.bound: {}}}
	if resp, err := w.ask(context.Background(), w.node, logical.UpdateOperation, "lookup", map[string]any{"key_id": id}); err == nil && !resp.IsError() {
		k.roleID, _ = resp.Data["role_id"].(string)
		w.names[k.roleID], _ = resp.Data["role"].(string)
	}
	w.mu.Lock()
	w.keys = append(w.keys, k)
	w.mu.Unlock()
	w.hear(k)
}

// sample asks the engine about every key: its word is what the edges are held against.
func (w *edgeWorld) sample() {
	for _, k := range w.keys {
		w.hear(k)
	}
}

// hear asks the engine about one key.
func (w *edgeWorld) hear(k *simKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	resp, err := w.ask(context.Background(), w.node, logical.UpdateOperation, "verify", map[string]any{"key": k.secret, "scopes": simScope})
	if err != nil {
		w.fail("the engine cannot verify: %v", err)
		return
	}
	state, _ := resp.Data["state"].(string)
	s := said{w.now(), resp.Data["valid"].(bool), fmt.Sprint(resp.Data["code"], " ", state)}
	k.words[""].add(s)
	if role, known := resp.Data["role"]; known && role != w.bound {
		s.valid, s.word = false, fmt.Sprint(codeNotFound, " ") // so says verify/<role>
	}
	k.words[w.bound].add(s)
}

func (s *simWord) add(one said) {
	if len(s.said) == 0 || s.last().valid != one.valid || s.last().word != one.word {
		s.said = append(s.said, one)
	}
}

// left is how long the key is good by what the engine says now.
func (w *edgeWorld) left(k *simKey) time.Duration {
	resp, err := w.ask(context.Background(), w.node, logical.UpdateOperation, "verify", map[string]any{"key": k.secret})
	if err != nil {
		return 0
	}
	ends, err := time.Parse(time.RFC3339, fmt.Sprint(resp.Data["expires_at"]))
	if err != nil {
		return time.Hour
	}
	return ends.Sub(w.node.now())
}

// ever reports whether the engine said that of the key at some instant between.
func (s *simWord) ever(valid bool, from, to time.Time) bool {
	for i, one := range s.said {
		end := to
		if i+1 < len(s.said) {
			end = s.said[i+1].at
		}
		if one.valid == valid && !one.at.After(to) && !end.Before(from) {
			return true
		}
	}
	return false
}

// edgeModel is what an edge can know: what answers have told it. The rules by which it
// is kept are those of the contract, in the simplest form.
type edgeModel struct {
	epoch    string
	polled   time.Time // when the last answered poll was sent: the confirmed instant
	informed time.Time // the same, but not later than what the node that answered knew
	exact    time.Time // when the last answered call with wait=0 was sent
	ahead    time.Duration
	took     time.Duration // the answer that told it: so much later it may be there
	notes    []simNote
	keys     map[string]*keyModel // by key id
	// Of the state file: what the wall clock was wrong by when it was written, and the
	// highest time that it had shown.
	wall time.Duration
	high time.Time
}

// simNote is a decision about a role or a key that was told, or a reset, which has no id.
type simNote struct {
	at       time.Time
	id       string
	position uint64
	epoch    string
	closing  bool
	polled   time.Time // the instants of before
	informed time.Time
}

// keyModel is what an edge holds of a key.
type keyModel struct {
	roleID   string
	line     timeline.Timeline
	holds    []timeline.Entry
	epoch    string
	position uint64
	at       time.Time // when the answer came
	sent     time.Time // when it was asked for
	informed time.Time
	over     bool   // an answer said that it has ended
	refused  bool   // the edge has, since
	once     []told // answers that were not kept
}

type told struct {
	at   time.Time
	line timeline.Timeline
}

func (m *edgeModel) clone() edgeModel {
	c := *m
	c.notes = slices.Clone(m.notes)
	c.keys = maps.Clone(m.keys)
	if c.keys == nil {
		c.keys = map[string]*keyModel{}
	}
	for id, k := range c.keys {
		own := *k
		own.once = slices.Clone(k.once)
		c.keys[id] = &own
	}
	return c
}

type edgeAnswer struct {
	Data struct {
		Cursor  string        `json:"cursor"`
		Reset   bool          `json:"reset"`
		Now     time.Time     `json:"now"`
		Notices []feed.Notice `json:"notices"`
		Results []struct {
			Code     string           `json:"code"`
			RoleID   string           `json:"role_id"`
			KeyID    string           `json:"key_id"`
			Timeline []timeline.Entry `json:"timeline"`
		} `json:"results"`
	} `json:"data"`
}

// learn takes an answer that reaches the edge. The world is locked.
func (e *simEdge) learn(path string, asked map[string]any, body []byte, n *simNode, sent time.Time) {
	var a edgeAnswer
	if err := json.Unmarshal(body, &a); err != nil {
		e.w.fail("an answer: %v", err)
		return
	}
	if strings.HasPrefix(path, "verify") {
		if sent.Before(e.newest) {
			e.w.saw("answer overtaken by a later one")
		}
		e.newest = latest(e.newest, sent)
	}
	epoch, position, _ := feed.ParseCursor(a.Data.Cursor)
	informed, m := sent, &e.knows
	if !n.deposed.IsZero() {
		e.w.saw("answer of a deposed node")
		if n.deposed.Before(informed) {
			informed = n.deposed
		}
	}
	switch strings.TrimSuffix(path, "/"+e.bound) {
	case "changes":
		before := simNote{at: e.w.now(), epoch: epoch, polled: m.polled, informed: m.informed}
		if a.Data.Reset || epoch != m.epoch {
			before.position = position
			m.notes = append(m.notes, before)
			e.w.saw("reset")
		}
		for _, notice := range a.Data.Notices {
			before.position, before.closing = notice.Position, notice.Closing
			if before.id = notice.RoleID; before.id == "" {
				before.id = notice.KeyID
			}
			m.notes = append(m.notes, before)
		}
		e.w.logf("%s: poll of %v ago answered %s %d notices reset %t", e.name, e.w.now().Sub(sent), a.Data.Cursor, len(a.Data.Notices), a.Data.Reset)
		if asked["wait"] == "0s" {
			m.exact, e.nudged = sent, 0
		}
		m.epoch, m.polled, m.informed, m.ahead, m.took = epoch, sent, informed, a.Data.Now.Sub(e.w.now()), e.w.now().Sub(sent)
	case "verify":
		var items []struct {
			Key   string `json:"key"`
			KeyID string `json:"key_id"`
		}
		if err := json.Unmarshal([]byte(fmt.Sprint(asked["batch"])), &items); err != nil || len(items) != len(a.Data.Results) {
			e.w.fail("%d answers to %d questions: %v", len(a.Data.Results), len(items), err)
			return
		}
		for i := range items {
			r := &a.Data.Results[i]
			if len(r.Timeline) == 0 {
				for _, k := range e.w.keys {
					if k.id == items[i].KeyID || k.secret == items[i].Key {
						delete(m.keys, k.id)
					}
				}
				continue
			}
			e.w.logf("%s: told of %s at %s, asked %v ago", e.name, r.KeyID, a.Data.Cursor, e.w.now().Sub(sent))
			line, err := timeline.Parse(r.Timeline)
			if err != nil {
				e.w.fail("a timeline: %v: %+v", err, r.Timeline)
				return
			}
			old := m.keys[r.KeyID]
			if epoch != m.epoch || old != nil && old.epoch == epoch && old.position > position {
				if old == nil {
					old = &keyModel{}
					m.keys[r.KeyID] = old
				}
				old.once = append(old.once, told{e.w.now(), line})
				continue
			}
			k := &keyModel{
				roleID: r.RoleID, line: line, holds: r.Timeline, epoch: epoch, position: position,
				at: e.w.now(), sent: sent, informed: informed, over: line.Code(0).Ended(),
			}
			if old != nil {
				k.over, k.once = k.over || old.over, old.once
			}
			m.keys[r.KeyID] = k
		}
	}
}

// pending are the decisions about a key, oldest first, that the edge was told of and
// that the answer that it holds may not know.
func (m *edgeModel) pending(id string, k *keyModel) []simNote {
	var found []simNote
	for _, n := range m.notes {
		if n.id != "" && n.id != id && n.id != k.roleID {
			continue
		}
		if n.epoch == k.epoch && n.position > k.position || n.epoch != k.epoch && n.at.After(k.at) {
			found = append(found, n)
		}
	}
	return found
}

// settle declares what there is at the start.
func (w *edgeWorld) settle() {
	config := map[string]any{"edge_max_staleness": "60s", "delete_recovery": "1h", "feed_wait": w.wait.String()}
	if w.seed%2 == 0 {
		config["trusted_reporters"] = "*" // then what edges report prolongs graces
	}
	w.operate(logical.UpdateOperation, "config", config)
	for _, r := range simRoles {
		w.declare(r.name, r.dynamic)
		w.operate(logical.ReadOperation, "creds/"+r.name, nil)
	}
}

// verify has the edge judge a key, and holds that against what the engine said and what
// the edge was told.
func (e *simEdge) verify(k *simKey) {
	w := e.w
	w.mu.Lock()
	run, ver, began := e.run, e.v, w.now()
	if !e.asleep.IsZero() || e.down {
		w.mu.Unlock()
		return
	}
	w.mu.Unlock()
	floor := w.active().now()
	v, err := ver.Verify(context.Background(), edge.Request{Key: k.secret, Scopes: []string{simScope}})
	w.hear(k)
	w.mu.Lock()
	defer w.mu.Unlock()
	ended := w.now()
	if e.run != run {
		return
	}
	w.logf("%s: %s is %s %s %s cut off %t %v after %v", e.name, k.id, v.Code, v.State, v.Reason, v.CutOff, err != nil, ended.Sub(began))
	j := &judged{e: e, k: k, said: k.words[e.bound], v: v, err: err, began: began, ended: ended, live: began.Sub(e.healthy) > w.settled(), held: e.knows.keys[k.id]}
	if j.held != nil && j.held.line == nil && len(j.held.once) == 0 {
		j.held = nil
	}
	j.check()
	if err == nil && j.live {
		j.time(floor)
	}
	if err == nil && !v.Valid && j.held != nil {
		j.held.refused = true
	}
}

// judged is a verdict that is looked at. The world is locked.
type judged struct {
	e            *simEdge
	k            *simKey
	said         *simWord
	v            edge.Verdict
	err          error
	began, ended time.Time
	live         bool // it was well for long enough
	held         *keyModel
}

// Bounds of section 10, and what the simulation adds to them.
const (
	// counts: with a live feed a decision counts a second after its answer. The
	// simulated network takes up to 20 ms each way.
	counts = time.Second + 60*time.Millisecond
	// granularity of what is known of the engine's word.
	granularity = 1100 * time.Millisecond
	// known is after how long an import or a restoration counts.
	known = 5 * time.Second
)

func (j *judged) fail(format string, args ...any) {
	e, k := j.e, j.k
	var m string
	if j.held != nil {
		m = fmt.Sprintf("%+v", j.held.holds)
	}
	e.w.fail("%s, asked %v ago: %s\nkey %s of %s: %+v, %v\nthe engine said %v\nthe edge was told %s\nit polled %v, well since %v, cut %d, slow %v, flaky %.2f", e.name, j.ended.Sub(j.began),
		fmt.Sprintf(format, args...), k.id, e.w.names[k.roleID], j.v, j.err, j.said.said, m, e.knows.polled, e.healthy, e.cut, e.slow, e.flaky)
}

func (j *judged) check() {
	w, e, k := j.e.w, j.e, j.k
	took := j.ended.Sub(j.began)
	if took > 1100*time.Millisecond {
		j.fail("a verdict took %v", took)
	}
	switch {
	case j.err != nil:
		w.saw("no verdict")
		if j.live {
			j.fail("no verdict, though all is well")
		}
		if why := j.answerable(); why != "" {
			j.fail("no verdict, though %s", why)
		}
	case j.v.Valid:
		j.accepted()
	default:
		w.saw("refusal")
		if e.bound != "" && k.words[""].last().valid && !j.said.last().valid {
			w.saw("refusal of a key that only another edge knows")
		}
		if j.live && !j.said.revived && (j.held == nil || !j.held.over) && w.left(k) > w.standing() && !j.said.ever(false, j.began.Add(-counts-known-granularity), j.ended) {
			j.fail("refused, though it is good")
		}
		j.unheld()
	}
	if parted := (e.wall + e.slept - e.asked).Abs(); j.err == nil && j.v.Valid && parted > 2*time.Second && e.stepped.Before(j.began) && took < time.Second {
		j.fail("accepted before the server was asked, after the clocks parted by %v", parted)
	}
}

// accepted checks that a key that was accepted was good lately enough.
func (j *judged) accepted() {
	w, e, k, h := j.e.w, j.e, j.k, j.held
	w.saw("acceptance")
	if k.imported {
		w.saw("acceptance of an imported key")
	}
	if e.bound != "" {
		w.saw("acceptance by an edge that knows one role")
	}
	if h == nil {
		j.fail("accepted, though nobody told the edge of it")
		return
	}
	for _, o := range h.once {
		if !o.at.Before(j.began) && o.line.Code(o.line.At(j.v.Now.UnixNano())) == timeline.Valid {
			w.saw("acceptance by an answer of another epoch")
			return // it was asked for now
		}
	}
	if h.line == nil {
		j.fail("accepted by an answer that was good for once")
		return
	}
	pending := e.knows.pending(k.id, h)
	polled, informed := latest(e.knows.polled, h.sent), latest(e.knows.informed, h.informed)
	if len(pending) > 0 {
		polled, informed = latest(pending[0].polled, h.sent), latest(pending[0].informed, h.informed)
	}
	since := informed
	if j.live || since.After(j.began.Add(-counts)) {
		since = j.began.Add(-counts)
	}
	if !j.said.ever(true, since, j.ended) {
		j.fail("accepted, though it has not been good since %v, and the edge could know", since)
	}
	for _, n := range pending {
		if n.closing && n.at.Before(j.began) {
			j.fail("accepted, though it was told at %v that something was closed: %v", n.at, n.id)
		}
	}
	if late := j.began.Sub(polled) - simStaleness; late > 50*time.Millisecond {
		j.fail("accepted %v after max_staleness", late)
	}
	if j.v.CutOff {
		w.saw("acceptance while cut off")
	}
	if h.over && !j.said.revived {
		j.fail("accepted, though an answer said that it has ended")
	}

	now := j.v.Now.UnixNano()
	i := h.line.At(now)
	switch code := h.line.Code(i); {
	case code == timeline.Valid:
	case !code.Ended():
		j.fail("accepted as %s", code)
	default:
		end := h.holds[i]
		confirmed := polled.Add(e.knows.ahead)
		switch {
		case end.Renewable && !h.at.Before(j.began):
			w.saw("acceptance by an answer though a lease seems to be over")
			return
		case end.HoldUntil.IsZero():
			j.fail("accepted after its end at %v, by its own timeline", end.From)
		case !j.v.CutOff:
			j.fail("an end at %v was held back though the edge is live", end.From)
		case now >= end.HoldUntil.UnixNano():
			j.fail("an end was held back past %v", end.HoldUntil)
		case end.From.Before(confirmed.Add(-granularity)):
			j.fail("an end at %v was held back, though it falls before the confirmed instant %v", end.From, confirmed)
		case h.refused:
			j.fail("an end at %v was held back after it had been applied", end.From)
		}
		w.saw("acceptance of a key whose end is held back")
	}
}

// unheld checks that an end that is to be held back is.
func (j *judged) unheld() {
	e, h := j.e, j.held
	if e.stepped.After(e.knows.polled) {
		return // time that did not pass counts, until the feed answers: it may be ahead of the end
	}
	if h == nil || h.line == nil || !j.v.CutOff || j.v.Code == "INSUFFICIENT_SCOPE" || h.refused || h.over || len(e.knows.pending(j.k.id, h)) > 0 {
		return
	}
	now := j.v.Now.UnixNano()
	i := h.line.At(now)
	if i == 0 || h.line.Code(i-1) != timeline.Valid || !h.line.Code(i).Ended() {
		return
	}
	end := h.holds[i]
	slack := granularity + e.nudged + e.knows.took
	if n := e.w.node; n.now().Before(n.stands.Add(2 * e.w.standing())) {
		slack += e.w.standing() // its time stood still, and is believed to have gone on
	}
	if confirmed := latest(e.knows.polled, h.sent).Add(e.knows.ahead); end.From.After(confirmed.Add(slack)) && now < end.HoldUntil.UnixNano() {
		j.fail("refused, though its end at %v falls after the confirmed instant %v, and is to be held back", end.From, confirmed)
	}
	e.w.saw("refusal by an end while cut off")
}

// answerable says why the edge should have had a verdict though it could not ask.
func (j *judged) answerable() string {
	e, h := j.e, j.held
	if h == nil || h.line == nil || !e.stepped.Before(j.began.Add(-2*simStaleness)) {
		return ""
	}
	late := e.w.settled()
	if n := e.w.node; n.now().Before(n.stands.Add(simStaleness)) {
		late += simStaleness // who was away meanwhile took the time there to go on
	}
	if i := h.line.At(j.ended.Add(e.knows.ahead + late).UnixNano()); h.line.Renewable(i) {
		return "" // a renewal would not have been told; what time it is there it may know badly
	}
	polled := latest(e.knows.polled, h.sent)
	for i, n := range e.knows.pending(j.k.id, h) {
		if n.id != "" {
			return "" // somebody decided
		}
		if i == 0 {
			polled = latest(n.polled, h.sent)
		}
	}
	if j.ended.Sub(polled) > simStaleness-time.Second {
		return ""
	}
	return fmt.Sprintf("it holds the key, and was told at %v", polled)
}

// time checks the edge's idea of the server's time: it is never late, and no more ahead
// than two messages take.
func (j *judged) time(floor time.Time) {
	w := j.e.w
	n := w.node
	now := n.now()
	allowed := 150*time.Millisecond + j.e.nudged
	exact := j.e.knows.exact
	if exact.Add(n.clock.(simClock).off).Before(n.stands.Add(w.wait)) || j.began.Sub(exact) < w.wait {
		allowed = w.standing() // until after the next call that bounds it from both sides
	}
	if late := floor.Sub(j.v.Now); late > time.Millisecond {
		j.fail("the edge's server time is late by %v", late)
	}
	if ahead := j.v.Now.Sub(now); ahead > allowed {
		j.fail("the edge's server time is ahead by %v", ahead)
	}
}

// agrees checks, when all has been well for a while, that an edge says what the engine
// says.
func (e *simEdge) agrees(k *simKey) {
	w := e.w
	said := k.words[e.bound]
	if w.over() || said.revived || e.knows.keys[k.id] != nil && e.knows.keys[k.id].over {
		return
	}
	v, err := e.v.Verify(context.Background(), edge.Request{Key: k.secret, Scopes: []string{simScope}})
	w.hear(k)
	s := said.last()
	if word := fmt.Sprint(v.Code, " ", v.State); err != nil || word != s.word && w.now().Sub(s.at) > granularity+w.standing() && w.left(k) > w.standing() {
		w.fail("in the end %s says of %s: %s, %v; the engine %v", e.name, k.id, word, err, said.said)
	}
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
