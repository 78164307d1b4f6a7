// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

// simEdge is an edge, its machine and its network. What changes is guarded by the
// world's lock.
type simEdge struct {
	w     *edgeWorld
	name  string
	bound string // the only role whose keys it knows; empty: all
	opt   edge.Options
	v     *edge.Verifier
	// process counts how often it was started; run changes also when it is suspended or
	// goes on: what was asked before is not judged.
	process, run int

	// The network.
	cut     int // of requests, answers: 1, 2, both: 3
	slow    time.Duration
	flaky   float64
	pinned  *simNode  // a deposed node that it still talks to
	down    bool      // its process does not run
	healthy time.Time // since when all is well; in the future while it is not
	newest  time.Time // when the latest question that was answered was sent

	// The machine.
	wall     time.Duration // what its wall clock is wrong by
	slept    time.Duration
	readings time.Duration // of its clocks, a nanosecond each
	asleep   time.Time     // since when; zero: it is awake
	sleeping chan struct{}
	stepped  time.Time     // when its clock was set, or it woke
	asked    time.Duration // wall + slept when a wait=0 call was last begun that has ended
	nudged   time.Duration // what its clocks have parted by a little since it last had an answer to one

	knows edgeModel
	filed edgeModel // what it knew when its state file was written
	prior edgeModel // what it knew a moment ago
	file  os.FileInfo
}

var simStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // when a bubble begins

// clock is what the machine's clocks show: both stand still while it sleeps. No two
// readings are the same, as if a nanosecond passed.
func (e *simEdge) clock() (wall, mono int64) {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	now := e.w.now()
	if !e.asleep.IsZero() {
		now = e.asleep
	}
	e.readings++
	return now.Add(e.wall + e.readings).UnixNano(), int64(now.Sub(simStart) - e.slept + e.readings)
}

func (w *edgeWorld) newEdge(name, bound string, state bool) *simEdge {
	e := &simEdge{w: w, name: name, bound: bound, healthy: w.now()}
	config := api.DefaultConfig()
	config.Address = "http://sim.invalid"
	config.HttpClient = &http.Client{Transport: e}
	client, err := api.NewClient(config)
	if err != nil {
		w.t.Fatal(err)
	}
	client.SetToken("sim")
	e.opt = edge.Options{Client: client, Mount: "apikeys", Instance: name, Clock: e.clock, Label: name, Role: bound}
	if state {
		e.opt.StateFile, e.opt.StateKeyFile = filepath.Join(w.dir, name+".state"), filepath.Join(w.dir, name+".key")
	}
	e.open(edgeModel{})
	return e
}

// open starts the process.
func (e *simEdge) open(knows edgeModel) {
	e.w.mu.Lock()
	e.process++
	e.run++
	e.knows = knows.clone()
	e.knows.epoch = "" // until the feed has answered, answers are good for once
	e.prior = e.knows.clone()
	e.asked = e.wall + e.slept
	e.w.mu.Unlock()
	v, err := edge.New(e.opt)
	if err != nil {
		e.w.t.Fatal(err)
	}
	e.w.mu.Lock()
	e.v, e.down = v, false
	e.w.mu.Unlock()
}

// look notices that the state file was written.
func (e *simEdge) look() {
	if e.opt.StateFile == "" {
		return
	}
	info, err := os.Stat(e.opt.StateFile)
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if err == nil && !e.down && (e.file == nil || !os.SameFile(info, e.file)) {
		e.file = info
		e.write(e.prior) // it may have been written before the last answers came
	}
	e.prior = e.knows.clone()
}

// write notes what is in the state file. The world is locked.
func (e *simEdge) write(knows edgeModel) {
	e.filed = knows.clone()
	e.filed.wall = e.wall
	if wall := e.w.now().Add(e.wall); wall.After(e.filed.high) {
		e.filed.high = wall
	}
	e.knows.high = e.filed.high
}

// hop is what becomes of one request and its answer.
type hop struct {
	there, back             time.Duration
	lost, answerLost, twice bool
	refused                 bool // where it is lost: at once
}

func (e *simEdge) hop(path string) hop {
	r := e.w.random(e.name, path)
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	delay := func() time.Duration {
		if e.flaky > 0 && r.IntN(3) == 0 {
			return e.slow + time.Duration(r.Int64N(int64(700*time.Millisecond)))
		}
		return e.slow + time.Duration(r.Int64N(int64(20*time.Millisecond)))
	}
	return hop{
		there: delay(), back: delay(), twice: r.Float64() < 0.02, refused: r.Float64() < 0.5,
		lost: e.cut&1 != 0 || r.Float64() < e.flaky, answerLost: e.cut&2 != 0 || r.Float64() < e.flaky,
	}
}

var errRefused, errReset = errors.New("connection refused"), errors.New("connection reset")

// RoundTrip is the network between an edge and the engine.
func (e *simEdge) RoundTrip(req *http.Request) (*http.Response, error) {
	w, ctx := e.w, req.Context()
	raw, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	var data map[string]any
	if err := json.Unmarshal(raw, &data); err != nil {
		return nil, err
	}
	_, path, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v1/"), "/")
	w.mu.Lock()
	sent, process := w.now(), e.process
	if !e.asleep.IsZero() {
		sent = e.asleep // its clock shows that
	}
	if path == "changes" && data["wait"] == "0s" {
		clocks := e.wall + e.slept
		defer func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if e.process == process {
				e.asked = clocks
			}
		}()
	}
	w.mu.Unlock()

	h := e.hop(path)
	if err := e.awake(ctx); err != nil {
		return nil, err
	}
	if err := until(ctx, h.there); err != nil {
		return nil, err
	}
	if h.lost {
		w.saw("lost request")
		if h.refused {
			return nil, errRefused
		}
		return nil, never(ctx)
	}
	node := e.route()
	out, err := e.serve(ctx, node, path, data)
	if h.twice {
		w.saw("duplicate request")
		w.tasks.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, _ = e.serve(ctx, node, path, data)
		})
	}
	if err != nil {
		return nil, err
	}
	if err := until(ctx, h.back); err != nil {
		return nil, err
	}
	if err := e.awake(ctx); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.answerLost || e.cut&2 != 0 {
		w.mu.Unlock()
		w.saw("lost answer")
		err := never(ctx)
		w.mu.Lock()
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if e.process == process && out.status == http.StatusOK {
		e.learn(path, data, out.body, node, sent)
	}
	return &http.Response{
		StatusCode: out.status, Status: http.StatusText(out.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(out.body)), ContentLength: int64(len(out.body)), Request: req,
	}, nil
}

// until waits that long.
func until(ctx context.Context, d time.Duration) error {
	if !(simClock{}).Wait(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// never waits for an answer that does not come.
func never(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// awake waits until the machine does not sleep.
func (e *simEdge) awake(ctx context.Context) error {
	e.w.mu.Lock()
	sleeping := e.sleeping
	e.w.mu.Unlock()
	if sleeping == nil {
		return nil
	}
	select {
	case <-sleeping:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// route is the node that the edge talks to.
func (e *simEdge) route() *simNode {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if e.pinned != nil && !e.pinned.gone {
		return e.pinned
	}
	return e.w.node
}

type served struct {
	status int
	body   []byte
}

// serve has a node answer.
func (e *simEdge) serve(ctx context.Context, n *simNode, path string, data map[string]any) (served, error) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.life, cancel)()
	resp, err := e.w.ask(inner, n, logical.UpdateOperation, path, data)
	if n.life.Err() != nil {
		if n.hangs {
			return served{}, never(ctx)
		}
		return served{}, errReset
	}
	if ctx.Err() != nil {
		return served{}, ctx.Err()
	}
	out, answer := served{status: http.StatusOK}, map[string]any{}
	switch {
	case err != nil:
		out.status, answer["errors"] = http.StatusInternalServerError, []string{err.Error()}
	case resp != nil && resp.IsError():
		out.status, answer["errors"] = http.StatusBadRequest, []string{resp.Error().Error()}
	case resp != nil:
		answer["data"] = resp.Data
	}
	out.body, err = json.Marshal(answer)
	return out, err
}

// unwell and well: whether an edge is held to the bounds of a live feed. The world is
// locked.
func (e *simEdge) unwell() { e.healthy = e.w.now().Add(24 * time.Hour) }

func (e *simEdge) well(from time.Time) {
	if e.cut == 0 && e.slow == 0 && e.flaky == 0 && e.asleep.IsZero() && e.pinned == nil && !e.down {
		e.healthy = from
	}
}

// sleep suspends the machine.
func (e *simEdge) sleep(d time.Duration) {
	w := e.w
	w.mu.Lock()
	e.run++
	e.asleep, e.sleeping = w.now(), make(chan struct{})
	e.unwell()
	done := e.sleeping
	w.mu.Unlock()
	w.tasks.Go(func() {
		select {
		case <-time.After(d):
			e.wake()
		case <-done:
		}
	})
}

// parted takes into account that the clocks have parted: a little is no reason to ask,
// however often it happens. The world is locked.
func (e *simEdge) parted(by time.Duration) {
	if by.Abs() <= 2*time.Second {
		e.asked += by
		e.nudged += by.Abs()
	}
}

func (e *simEdge) wake() {
	w := e.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.sleeping == nil {
		return
	}
	e.run++
	gap := w.now().Sub(e.asleep)
	e.slept += gap
	e.parted(gap)
	e.stepped = w.now()
	e.asleep = time.Time{}
	close(e.sleeping)
	e.sleeping = nil
	e.well(w.now())
}
