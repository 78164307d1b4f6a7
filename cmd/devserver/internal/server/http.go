// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

const (
	tokenHeader      = "X-Vault-Token"
	wrapTTLHeader    = "X-Vault-Wrap-TTL"
	namespaceHeader  = "X-Vault-Namespace"
	mergePatchFormat = "application/merge-patch+json"
)

// requestLimit bounds one request, as a real server does.
const requestLimit = 90 * time.Second

// Handler serves the API.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestLimit)
		defer cancel()
		s.serve(w, r.WithContext(ctx))
	})
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	started := time.Now()
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	path, below := strings.CutPrefix(r.URL.Path, "/v1/")
	if err := checkSource(r); err != nil {
		respondError(rec, http.StatusForbidden, err)
	} else if err := checkText(r); err != nil {
		respondError(rec, http.StatusBadRequest, err)
	} else if !below {
		respondError(rec, http.StatusNotFound, nil)
	} else if !s.serveStatus(rec, r, path) {
		s.serveLogical(rec, r, path)
	}
	s.logger.Debug("request", "method", methodForLog(r.Method), "route", s.routeForLog(path), "status", rec.status, "took", time.Since(started))
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (s *Server) serveLogical(w http.ResponseWriter, hr *http.Request, path string) {
	req, status, err := s.parse(hr, path)
	if err != nil || status != 0 {
		respondError(w, status, err)
		return
	}
	resp, err := s.handle(hr.Context(), req)
	if status, err := respondErrorCommon(req, resp, err); status != 0 || err != nil {
		if err == nil && resp != nil && len(resp.Warnings) > 0 && status == http.StatusNotFound {
			// A list or read without result keeps its warnings.
			writeJSON(w, status, envelopeOf(req, resp))
			return
		}
		respondError(w, status, err)
		return
	}
	s.respond(w, hr, req, resp)
}

func respondErrorCommon(req *request, resp *logical.Response, err error) (int, error) {
	if req.Operation == logical.HelpOperation && err == nil {
		return 0, nil
	}
	if resp != nil && resp.WrapInfo != nil && err == nil {
		return 0, nil
	}
	var behind *routedError
	if !errors.As(err, &behind) {
		return logical.RespondErrorCommon(req.Request, resp, err)
	}
	status, text := logical.RespondErrorCommon(req.Request, resp, behind.cause)
	logical.AdjustErrorStatusCode(&status, behind.cause)
	if resp.IsError() {
		return status, text
	}
	return status, errors.New(behind.Error())
}

// parse makes a request of an HTTP request. A status without an error is answered without text.
func (s *Server) parse(hr *http.Request, path string) (*request, int, error) {
	if ns := strings.Trim(hr.Header.Get(namespaceHeader), "/"); ns != "" && ns != "root" {
		return nil, http.StatusBadRequest, errors.New("this development server has no namespaces: unset VAULT_NAMESPACE")
	}
	req := &request{Request: &logical.Request{ID: newUUID(), Headers: hr.Header.Clone(), Connection: connectionOf(hr)}}
	query := hr.URL.Query()
	help := query.Get("help") != "" || hr.Method == "HELP"
	switch {
	case help:
		req.Operation = logical.HelpOperation
	case hr.Method == http.MethodGet:
		list, okList := queryFlag(query, "list")
		scan, okScan := queryFlag(query, "scan")
		if !okList || !okScan || list && scan {
			return nil, http.StatusBadRequest, nil
		}
		switch {
		case list:
			req.Operation = logical.ListOperation
		case scan:
			req.Operation = scanOperation
		default:
			req.Operation = logical.ReadOperation
		}
		req.Data = queryData(query)
	case hr.Method == "LIST":
		req.Operation, req.Data = logical.ListOperation, queryData(query)
	case hr.Method == "SCAN":
		req.Operation, req.Data = scanOperation, queryData(query)
	case hr.Method == http.MethodHead:
		req.Operation, req.Data = headerOperation, queryData(query)
	case hr.Method == http.MethodDelete:
		req.Operation, req.Data = logical.DeleteOperation, queryData(query)
	case hr.Method == http.MethodPost, hr.Method == http.MethodPut:
		req.Operation = logical.UpdateOperation
		if status, err := readBody(hr, req); err != nil {
			return nil, status, err
		}
	case hr.Method == http.MethodPatch:
		req.Operation = logical.PatchOperation
		format, _, err := mime.ParseMediaType(hr.Header.Get("Content-Type"))
		if err != nil {
			return nil, http.StatusBadRequest, err
		}
		if format != mergePatchFormat {
			return nil, http.StatusUnsupportedMediaType, fmt.Errorf("PATCH requires Content-Type of %s, provided %s", mergePatchFormat, format)
		}
		if status, err := readBody(hr, req); err != nil {
			return nil, status, err
		}
	default:
		return nil, http.StatusMethodNotAllowed, nil
	}
	if (req.Operation == logical.ListOperation || req.Operation == scanOperation) && !strings.HasSuffix(path, "/") {
		path += "/"
	}
	req.fullPath = path
	req.clientToken = hr.Header.Get(tokenHeader)
	if req.clientToken == "" {
		if kind, value, ok := strings.Cut(hr.Header.Get("Authorization"), " "); ok && strings.EqualFold(kind, "Bearer") {
			req.clientToken = strings.TrimSpace(value)
		}
	}
	if text := hr.Header.Get(wrapTTLHeader); text != "" {
		ttl, err := parseDuration(text)
		if err != nil {
			return nil, http.StatusBadRequest, fmt.Errorf("error parsing %s header: %w", wrapTTLHeader, err)
		}
		req.WrapInfo = &logical.RequestWrapInfo{TTL: ttl}
	}
	return req, 0, nil
}

func readBody(hr *http.Request, req *request) (int, error) {
	body, err := io.ReadAll(http.MaxBytesReader(nil, hr.Body, maxBodyBytes))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return http.StatusRequestEntityTooLarge, errors.New("http: request body too large")
		}
		return http.StatusBadRequest, errors.New("error reading data")
	}
	format, _, _ := mime.ParseMediaType(hr.Header.Get("Content-Type"))
	if format == "application/x-www-form-urlencoded" && len(body) > 0 && body[0] != '{' && body[0] != '[' {
		values, err := url.ParseQuery(string(body))
		if err != nil {
			return http.StatusBadRequest, errors.New("error parsing form data")
		}
		if !validText(values) {
			return http.StatusBadRequest, errNotText
		}
		req.Data = queryData(values)
		return 0, nil
	}
	if req.Data, err = decodeBody(body); err != nil {
		return http.StatusBadRequest, err
	}
	return 0, nil
}

// queryFlag takes a flag out of the query. It is not ok if it is neither true nor false.
func queryFlag(query url.Values, name string) (value, ok bool) {
	text := query.Get(name)
	query.Del(name)
	if text == "" {
		return false, true
	}
	value, err := strconv.ParseBool(text)
	return value, err == nil
}

// queryData is how query parameters reach an engine: text, or a list where one is repeated.
func queryData(query url.Values) map[string]any {
	data := map[string]any{}
	for k, v := range query {
		switch len(v) {
		case 0:
		case 1:
			data[k] = v[0]
		default:
			list := make([]any, len(v))
			for i := range v {
				list[i] = v[i]
			}
			data[k] = list
		}
	}
	if len(data) == 0 {
		return nil
	}
	return data
}

func connectionOf(hr *http.Request) *logical.Connection {
	host, port, err := net.SplitHostPort(hr.RemoteAddr)
	if err != nil {
		return &logical.Connection{}
	}
	n, _ := strconv.Atoi(port)
	return &logical.Connection{RemoteAddr: host, RemotePort: n}
}
