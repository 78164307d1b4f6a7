// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/apikeys/internal/access"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/vaultlogin"
)

const (
	// maxReported is how many keys go into one request; the engine takes a thousand.
	maxReported = 500
	// maxSeen is how much of where a key was found is told.
	maxSeen = 500
)

// reportItem is a find as the engine reads it.
type reportItem struct {
	Key    string `json:"key"`
	Type   string `json:"type"`
	URL    string `json:"url"`
	Source string `json:"source"`
}

// reporter makes ready what sends finds to the engine, and tells what came of each.
func reporter(ctx context.Context, server *access.Flags, errs io.Writer) (func(*findings) error, error) {
	if _, err := server.Options(quiet); err != nil {
		return nil, err
	}
	return func(all *findings) error {
		keys := all.keys()
		if len(keys) == 0 {
			return nil
		}
		ctx, cancel := context.WithCancel(ctx)
		var done sync.WaitGroup
		defer done.Wait()
		defer cancel()
		session, err := server.Session(ctx, &done, quiet)
		if err != nil {
			return err
		}
		for len(keys) > 0 {
			part := keys[:min(len(keys), maxReported)]
			keys = keys[len(part):]
			if err := send(ctx, session, server.Mount(), part, errs); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func send(ctx context.Context, session *vaultlogin.Session, mount string, keys []*finding, errs io.Writer) error {
	var batch strings.Builder
	lines := json.NewEncoder(&batch)
	for _, one := range keys {
		seen := one.where.String()
		if err := lines.Encode(reportItem{one.key.Reveal(), "apikeys", seen[:min(len(seen), maxSeen)], "apikeys scan"}); err != nil {
			return err
		}
	}
	raw, err := session.Do(ctx, func(c *api.Client) (*api.Response, error) {
		r := c.NewRequest("PUT", "/v1/"+mount+"/report")
		if err := r.SetJSONBody(map[string]any{"batch": batch.String()}); err != nil {
			return nil, err
		}
		return c.RawRequestWithContext(ctx, r) //nolint:staticcheck // the way to an answer as it is
	})
	if err != nil {
		return err
	}
	var answer struct {
		Data struct {
			Results []string `json:"results"`
		} `json:"data"`
		Warnings []string `json:"warnings"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("the answer: %w", err)
	}
	if len(answer.Data.Results) != len(keys) {
		return errors.New("the answer does not have one result for each key")
	}
	for i, one := range keys {
		fmt.Fprintf(errs, "apikeys scan: reported %s: %s\n", one.key.ID(), shown(answer.Data.Results[i]))
	}
	for _, warning := range answer.Warnings {
		fmt.Fprintln(errs, "apikeys scan: the server warns:", shown(warning))
	}
	return nil
}
