// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// statusPaths are what serveStatus serves.
var statusPaths = []string{"sys/seal-status", "sys/health", "sys/leader", "sys/init", "sys/unseal"}

// serveStatus serves what is asked without a token and also while sealed, and reports whether path is of
// that kind.
func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request, path string) bool {
	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	put := r.Method == http.MethodPut || r.Method == http.MethodPost
	var serve func(http.ResponseWriter, *http.Request)
	switch strings.TrimSuffix(path, "/") {
	case "sys/seal-status":
		serve = allow(get, s.serveSealStatus)
	case "sys/health":
		serve = allow(get, s.serveHealth)
	case "sys/leader":
		serve = allow(get, s.serveLeader)
	case "sys/init":
		serve = allow(get || put, s.serveInit)
	case "sys/unseal":
		serve = allow(put, s.serveUnseal)
	default:
		return false
	}
	serve(w, r)
	return true
}

func allow(ok bool, serve func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) {
	if ok {
		return serve
	}
	return func(w http.ResponseWriter, _ *http.Request) { respondError(w, http.StatusMethodNotAllowed, nil) }
}

func (s *Server) serveSealStatus(w http.ResponseWriter, _ *http.Request) {
	sealed := s.sealed.Load()
	body := map[string]any{
		"type": "shamir", "initialized": true, "sealed": sealed, "t": 1, "n": 1, "progress": 0, "nonce": "", "version": Version,
		"build_date": "", "migration": false, "recovery_seal": false, "storage_type": s.cfg.StorageType,
	}
	if !sealed {
		body["cluster_name"], body["cluster_id"] = "devserver", s.clusterID
	}
	writeJSON(w, http.StatusOK, body)
}

func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	status, sealed := http.StatusOK, s.sealed.Load()
	name := "activecode"
	if sealed {
		status, name = http.StatusServiceUnavailable, "sealedcode"
	}
	if text := r.URL.Query().Get(name); text != "" {
		code, err := strconv.Atoi(text)
		if err != nil || code < 100 || code > 599 {
			respondError(w, http.StatusBadRequest, errors.New(name+" is not an HTTP status"))
			return
		}
		status = code
	}
	writeJSON(w, status, map[string]any{
		"initialized": true, "sealed": sealed, "standby": sealed, "performance_standby": false, "replication_performance_mode": "disabled",
		"replication_dr_mode": "disabled", "server_time_utc": s.now().Unix(), "version": Version, "enterprise": false,
		"cluster_name": "devserver", "cluster_id": s.clusterID, "echo_duration_ms": 0, "clock_skew_ms": 0,
	})
}

func (s *Server) serveLeader(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"ha_enabled": false, "is_self": !s.sealed.Load(), "active_time": s.started.UTC(), "leader_address": "", "leader_cluster_address": "",
		"performance_standby": false, "performance_standby_last_remote_wal": 0,
	})
}

func (s *Server) serveInit(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		respondError(w, http.StatusBadRequest, errors.New("Vault is already initialized")) //nolint:staticcheck // the text is part of the API
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"initialized": true})
}

// serveUnseal accepts any key: there is nothing encrypted that it could open.
func (s *Server) serveUnseal(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err == nil {
		var body map[string]any
		if body, err = decodeBody(raw); err == nil {
			if reset, _ := body["reset"].(bool); !reset && fields(body).text("key") == "" {
				err = errors.New("'key' must be specified in request body as JSON, or 'reset' set to true")
			}
		}
	}
	if err != nil {
		respondError(w, http.StatusBadRequest, err)
		return
	}
	if err := s.Open(context.WithoutCancel(r.Context())); err != nil {
		respondError(w, http.StatusInternalServerError, err)
		return
	}
	s.serveSealStatus(w, r)
}
