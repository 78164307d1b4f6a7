// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version"
)

// What is written of SARIF 2.1.0 (OASIS). A finding is one result, whose other places are
// related locations.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool         `json:"tool"`
		Invocations []sarifInvocation `json:"invocations"`
		Results     []sarifResult     `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string         `json:"id"`
		Name             string         `json:"name"`
		ShortDescription sarifText      `json:"shortDescription"`
		FullDescription  sarifText      `json:"fullDescription"`
		Help             sarifText      `json:"help"`
		Default          sarifDefault   `json:"defaultConfiguration"`
		Properties       map[string]any `json:"properties"`
	}
	sarifDefault struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifInvocation struct {
		Successful    bool                `json:"executionSuccessful"`
		Notifications []sarifNotification `json:"toolExecutionNotifications"`
	}
	sarifNotification struct {
		Level   string    `json:"level"`
		Message sarifText `json:"message"`
	}
	sarifResult struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      sarifText         `json:"message"`
		Locations    []sarifLocation   `json:"locations"`
		Related      []sarifLocation   `json:"relatedLocations,omitempty"`
		Fingerprints map[string]string `json:"partialFingerprints"`
		Properties   map[string]any    `json:"properties"`
	}
	sarifLocation struct {
		ID       int            `json:"id,omitempty"`
		Message  *sarifText     `json:"message,omitempty"`
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations,omitempty"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
	sarifLogical struct {
		Name string `json:"fullyQualifiedName"`
		Kind string `json:"kind"`
	}
)

const (
	sarifRuleID = "apikeys/key"
	// fingerprint is the name of what stays the same of a result while files are edited.
	fingerprint = "keyAndPath/v1"
)

func writeSARIF(w io.Writer, all *findings) error {
	run := sarifRun{
		Tool: sarifTool{sarifDriver{Name: "apikeys scan", Version: version.Version, Rules: []sarifRule{{
			ID: sarifRuleID, Name: "APIKey",
			ShortDescription: sarifText{"An API key is in the open"},
			FullDescription:  sarifText{"A text holds an API key of the secrets engine. Its checksum is right, so it is no look-alike."},
			Help: sarifText{"Report the key, so that the engine ends or replaces it; apikeys scan -report does that. " +
				"To take it out of the text is not enough: it stays in the history and in copies."},
			Default:    sarifDefault{"error"},
			Properties: map[string]any{"tags": []string{"security", "secret"}, "precision": "very-high", "security-severity": "9.0"},
		}}}},
		Invocations: []sarifInvocation{{Successful: len(all.problems) == 0, Notifications: []sarifNotification{}}},
		Results:     []sarifResult{},
	}
	for _, p := range all.sortedProblems() {
		n := &run.Invocations[0].Notifications
		*n = append(*n, sarifNotification{"error", sarifText{p.String()}})
	}
	for _, one := range all.sorted() {
		run.Results = append(run.Results, sarifResultOf(one))
	}
	return writeASCII(w, sarifLog{
		Schema:  "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
		Version: "2.1.0", Runs: []sarifRun{run},
	})
}

func sarifResultOf(one *finding) sarifResult {
	sum := sha256.Sum256([]byte(one.key.ID() + "\x00" + filepath.ToSlash(plain(one.path))))
	r := sarifResult{
		RuleID: sarifRuleID, Level: "error",
		Message:      sarifText{"The API key " + one.key.ID() + " is here."},
		Fingerprints: map[string]string{fingerprint: hex.EncodeToString(sum[:16])},
		Properties:   map[string]any{"keyId": one.key.ID(), "prefix": one.key.Prefix(), "count": one.count},
	}
	if one.commit != "" {
		r.Properties["commit"] = one.commit
	}
	if one.object != "" {
		r.Properties["object"] = one.object
	}
	for i, p := range one.places {
		l := sarifLocation{}
		if one.path == "" { // a message, or an object that no commit holds
			l.Logical = []sarifLogical{{Name: one.where.String(), Kind: "object"}}
		} else {
			l.Physical = &sarifPhysical{Artifact: sarifArtifact{uri(one.path)}}
			if p.line > 0 {
				l.Physical.Region = &sarifRegion{p.line}
			}
		}
		if i == 0 {
			r.Locations = []sarifLocation{l}
			continue
		}
		l.ID, l.Message = i, &sarifText{"and here"}
		r.Related = append(r.Related, l)
	}
	return r
}

// uri is a path as a reference; a relative one stays that.
func uri(path string) string {
	path = filepath.ToSlash(path)
	absolute := filepath.IsAbs(filepath.FromSlash(path))
	parts := strings.Split(keyformat.Redact(path), "/")
	for i, part := range parts {
		parts[i] = strings.ReplaceAll(url.PathEscape(part), ":", "%3A")
	}
	path = strings.Join(parts, "/")
	switch {
	case absolute && strings.HasPrefix(path, "/"):
		return "file://" + path
	case absolute:
		return "file:///" + path
	default:
		return path
	}
}
