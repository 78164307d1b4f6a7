// SPDX-License-Identifier: MPL-2.0

package server

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// rawErrorHeader says why a raw answer could not be given.
const rawErrorHeader = "X-Vault-Raw-Error"

// envelope is the body of an ordinary answer.
type envelope struct {
	*logical.HTTPResponse
	MountType string `json:"mount_type"`
}

func envelopeOf(req *request, resp *logical.Response) envelope {
	if info := resp.WrapInfo; info != nil && info.Token != "" {
		return envelope{HTTPResponse: &logical.HTTPResponse{WrapInfo: &logical.HTTPWrapInfo{
			Token:           info.Token,
			Accessor:        info.Accessor,
			TTL:             int(info.TTL.Seconds()),
			CreationTime:    info.CreationTime.Format(time.RFC3339Nano),
			CreationPath:    info.CreationPath,
			WrappedAccessor: info.WrappedAccessor,
		}}}
	}
	body := logical.LogicalResponseToHTTPResponse(resp)
	body.RequestID = req.ID
	return envelope{HTTPResponse: body, MountType: req.MountType}
}

func (s *Server) respond(w http.ResponseWriter, hr *http.Request, req *request, resp *logical.Response) {
	switch {
	case req.unwrapped != nil:
		respondUnwrapped(w, req)
		return
	case resp == nil:
		w.WriteHeader(http.StatusNoContent)
		return
	case resp.Redirect != "":
		//nolint:gosec // where to is the engine's word, not the client's
		http.Redirect(w, hr, resp.Redirect, http.StatusTemporaryRedirect)
		return
	case req.Operation == logical.HelpOperation:
		writeJSON(w, http.StatusOK, resp.Data)
		return
	}
	for name, values := range resp.Headers {
		for _, v := range values {
			w.Header().Add(name, v)
		}
	}
	if _, raw := resp.Data[logical.HTTPStatusCode]; raw {
		respondRaw(w, resp)
		return
	}
	body := envelopeOf(req, resp)
	if rt, _ := s.findRoute(req.fullPath); rt != nil && rt.inject && resp.WrapInfo == nil {
		writeJSON(w, http.StatusOK, injected(body))
		return
	}
	writeJSON(w, http.StatusOK, body)
}

// injected repeats the data beside the envelope's own members.
func injected(body envelope) map[string]any {
	out := map[string]any{}
	for k, v := range body.Data {
		out[k] = v
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return out
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return out
	}
	for k, v := range members {
		out[k] = v
	}
	return out
}

func respondUnwrapped(w http.ResponseWriter, req *request) {
	if _, raw := req.unwrapped.Data[logical.HTTPStatusCode]; raw {
		respondRaw(w, &logical.Response{Data: req.unwrapped.Data})
		return
	}
	writeJSON(w, http.StatusOK, envelope{HTTPResponse: req.unwrapped})
}

// respondRaw writes an answer whose body the engine made itself.
func respondRaw(w http.ResponseWriter, resp *logical.Response) {
	fail := func(why string) {
		w.Header().Set(rawErrorHeader, why)
		w.WriteHeader(http.StatusInternalServerError)
	}
	if resp.Secret != nil || resp.Auth != nil {
		fail("raw responses cannot contain secrets or auth")
		return
	}
	var status int
	switch code := resp.Data[logical.HTTPStatusCode].(type) {
	case int:
		status = code
	case float64:
		status = int(code)
	case json.Number:
		n, err := code.Int64()
		if err != nil {
			fail("cannot decode status code")
			return
		}
		status = int(n)
	}
	if status < 100 || status > 999 {
		fail("cannot decode status code")
		return
	}
	contentType, ok := resp.Data[logical.HTTPContentType].(string)
	if !ok && status != http.StatusNoContent {
		fail("no content type given")
		return
	}
	var body []byte
	switch b := resp.Data[logical.HTTPRawBody].(type) {
	case nil:
	case []byte:
		body = b
	case string:
		// Over the plugin's connection bytes arrive as base64; a text that happens to be base64 is decoded too.
		decoded, err := base64.StdEncoding.DecodeString(b)
		if err != nil {
			decoded = []byte(b)
		}
		body = decoded
	default:
		fail("cannot decode body")
		return
	}
	if contentType != "" {
		w.Header().Set("Content-Type", contentType)
	}
	for key, header := range map[string]string{
		logical.HTTPCacheControlHeader:    "Cache-Control",
		logical.HTTPPragmaHeader:          "Pragma",
		logical.HTTPWWWAuthenticateHeader: "WWW-Authenticate",
	} {
		if v, ok := resp.Data[key].(string); ok {
			w.Header().Set(header, v)
		}
	}
	w.WriteHeader(status)
	if status != http.StatusNoContent {
		_, _ = w.Write(body) //nolint:gosec // body and content type are the engine's
	}
}

func respondError(w http.ResponseWriter, status int, err error) {
	if err != nil {
		logical.AdjustErrorStatusCode(&status, err)
	}
	if status == 0 {
		status = http.StatusInternalServerError
	}
	texts := []string{}
	if err != nil {
		texts = append(texts, err.Error())
	}
	writeJSON(w, status, map[string]any{"errors": texts})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A client that left is no error of the server.
	_ = json.NewEncoder(w).Encode(body)
}
