// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

// maxQuestion is how long a body of /verify may be: as long as a batch of the engine.
const (
	maxQuestion = 1 << 20
	maxBatch    = 1000
)

// asked is a question of /verify, as the engine's verify takes it.
type asked struct {
	Key        *string `json:"key"`
	Scopes     *texts  `json:"scopes"`
	AnyScope   *texts  `json:"any_scope"`
	RemoteAddr string  `json:"remote_addr"`
	Client     string  `json:"client"`
}

// texts are a list, or a text with commas.
type texts []string

func (t *texts) UnmarshalJSON(raw []byte) error {
	var list []string
	if err := json.Unmarshal(raw, &list); err == nil {
		*t = list
		return nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return errors.New("is neither a list of texts nor a text with commas")
	}
	for part := range strings.SplitSeq(text, ",") {
		*t = append(*t, strings.TrimSpace(part))
	}
	return nil
}

// Verify answers programs on the same machine in the engine's own words: POST /verify
// with a question, or with a batch of them.
func (g *Gate) Verify() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /verify", func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header["Origin"]) > 0 {
			refuse(w, http.StatusForbidden, errors.New("this is for programs, not for pages in a browser"))
			return
		}
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxQuestion))
		if err != nil {
			refuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("the body has more than %d bytes: send it in parts", maxQuestion))
			return
		}
		var body map[string]json.RawMessage
		if err := json.Unmarshal(raw, &body); err != nil {
			refuse(w, http.StatusBadRequest, errors.New("the body is not a JSON object"))
			return
		}
		batch, several := body["batch"]
		if !several {
			req, err := readQuestion(raw)
			if err != nil {
				refuse(w, http.StatusBadRequest, err)
				return
			}
			verdict, err := g.ask(r, req)
			if err != nil {
				w.Header().Set("Retry-After", "1")
				refuse(w, http.StatusServiceUnavailable, errUnavailable)
				return
			}
			writeJSON(w, http.StatusOK, verdictData(&verdict))
			return
		}
		if len(body) > 1 {
			refuse(w, http.StatusBadRequest, errors.New("batch: stands alone: give what is asked for in its items"))
			return
		}
		g.verifyBatch(w, r, batch)
	})
	return mux
}

var errUnavailable = errors.New("the server cannot be asked whether the key is good")

// verifyBatch answers each item by itself. One that nobody could be asked about has an
// error, and no code: it is no refusal.
func (g *Gate) verifyBatch(w http.ResponseWriter, r *http.Request, raw json.RawMessage) {
	items, err := batchItems(raw)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	results := make([]any, len(items))
	var asked sync.WaitGroup
	for i, item := range items {
		req, err := readQuestion(item)
		if err != nil {
			results[i] = map[string]any{"valid": false, "code": "MALFORMED", "error": err.Error()}
			continue
		}
		// At once: keys that are not held are asked about together.
		asked.Go(func() {
			verdict, err := g.ask(r, req)
			if err != nil {
				results[i] = map[string]any{"valid": false, "code": codeUnavailable, "error": errUnavailable.Error()}
				return
			}
			results[i] = verdictData(&verdict)
		})
	}
	asked.Wait()
	writeJSON(w, http.StatusOK, map[string]any{"results": results})
}

// batchItems reads a batch: a JSON array, or, as the engine takes it, the text of one,
// or a text with an object on each line.
func batchItems(raw json.RawMessage) ([]json.RawMessage, error) {
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, errors.New("batch: is neither a list nor a text")
		}
		text = strings.TrimSpace(text)
		if strings.HasPrefix(text, "[") {
			if err := json.Unmarshal([]byte(text), &items); err != nil {
				return nil, errors.New("batch: is not a JSON array")
			}
		} else {
			for line := range strings.Lines(text) {
				if line = strings.TrimSpace(line); line != "" {
					items = append(items, json.RawMessage(line))
				}
			}
		}
	}
	switch {
	case len(items) == 0:
		return nil, errors.New("batch: has no items")
	case len(items) > maxBatch:
		return nil, fmt.Errorf("batch: %d: has more than %d items: send it in parts", len(items), maxBatch)
	}
	return items, nil
}

func (g *Gate) ask(r *http.Request, req edge.Request) (edge.Verdict, error) {
	began := time.Now()
	verdict, err := g.verifier.Verify(r.Context(), req)
	code := verdict.Code
	if err != nil {
		code = codeUnavailable
	}
	g.metrics.decided(code, time.Since(began))
	return verdict, err
}

func readQuestion(raw json.RawMessage) (edge.Request, error) {
	var a asked
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil || dec.More() {
		// The decoder's text may hold what was sent.
		return edge.Request{}, errors.New("the question cannot be read: give key, and perhaps scopes, any_scope, remote_addr and client")
	}
	if a.Key == nil {
		return edge.Request{}, errors.New("key: is missing")
	}
	req := edge.Request{Key: *a.Key, Client: a.Client}
	for name, given := range map[string]struct {
		from *texts
		to   *[]string
	}{"scopes": {a.Scopes, &req.Scopes}, "any_scope": {a.AnyScope, &req.AnyScope}} {
		if given.from == nil {
			continue
		}
		*given.to = *given.from
		for _, s := range *given.to {
			if s == "" {
				return edge.Request{}, fmt.Errorf("%s: has an empty scope: leave the field out to ask for none", name)
			}
		}
		if len(*given.to) == 0 {
			return edge.Request{}, fmt.Errorf("%s: is empty: leave it out to ask for none", name)
		}
	}
	if a.RemoteAddr != "" {
		addr, err := netip.ParseAddr(a.RemoteAddr)
		if err != nil {
			return edge.Request{}, errors.New("remote_addr: is no IP address")
		}
		req.RemoteAddr = addr
	}
	return req, nil
}

// verdictData is a verdict as the engine's verify answers it.
func verdictData(v *edge.Verdict) map[string]any {
	data := map[string]any{"valid": v.Valid, "code": v.Code, "now": v.Now.UTC().Format(time.RFC3339Nano)}
	if v.Hint != "" {
		data["hint"] = v.Hint
	}
	if v.KeyID == "" {
		return data
	}
	data["role"], data["role_id"], data["key_id"], data["version"] = v.Role, v.RoleID, v.KeyID, v.Version
	data["state"], data["reason"], data["end"], data["rate_limit"] = v.State, v.Reason, v.End, v.RateLimit
	data["scopes"], data["metadata"], data["expires_at"] = v.Scopes, v.Metadata, ""
	data["cache_ttl"] = 0 // this edge is nearer than any cache, and hears of decisions
	if v.Scopes == nil {
		data["scopes"] = []string{}
	}
	if v.Metadata == nil {
		data["metadata"] = map[string]string{}
	}
	if !v.ExpiresAt.IsZero() {
		data["expires_at"] = v.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return data
}

func refuse(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, map[string]any{"errors": []string{err.Error()}})
}
