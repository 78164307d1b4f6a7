// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// paths lists every path. The first pattern that matches wins, with no fall
// through, so the more specific one of a family comes first.
func (b *backend) paths() []*framework.Path {
	return framework.PathAppend(
		b.pathsVerify(), // first: it is asked most, and the table is searched in order
		b.pathsUsage(),
		b.pathsLookup(),
		b.pathsRoles(),
		b.pathsConfig(),
		b.pathsRestore(),
		b.pathsCreds(),
		b.pathsRotate(),
		b.pathsRevoke(),
		b.pathsStatus(),
		b.pathsHistory(),
		b.pathsKeys(),
		b.pathsInventory(),
		b.pathsCalendar(),
		b.pathsTidy(),
		b.pathsReport(),
		b.pathsImport(),
		b.pathsBulk(),
		b.pathsKeyFormat(),
	)
}

// upkeep is the rest of a tick: what is not filed in the calendar.
func (b *backend) upkeep(ctx context.Context, t *tick) error {
	var errs []error
	for _, fn := range []func(context.Context, *tick) error{b.runJobs, b.flushUsage, b.tidySlowly} {
		errs = append(errs, fn(ctx, t))
	}
	return errors.Join(errs...)
}

// displayPrefix begins the operation ids of the OpenAPI document.
const displayPrefix = "api-keys"

// nameField is the role that a path names.
func nameField() *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeString, Description: "Name of the role."}
}

const nameRegex = `(?P<name>[^/]+)`

// ok is the declared answer of an operation.
func ok(description string, fields map[string]*framework.FieldSchema) map[int][]framework.Response {
	return map[int][]framework.Response{200: {{Description: description, Fields: fields}}}
}

func fields(sets ...map[string]*framework.FieldSchema) map[string]*framework.FieldSchema {
	all := map[string]*framework.FieldSchema{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// writes marks an operation that must run on a node that may write.
func writes(op *framework.PathOperation) *framework.PathOperation {
	op.ForwardPerformanceSecondary = true
	op.ForwardPerformanceStandby = true
	return op
}

// handler is how this package writes operations: an error is turned into an
// answer in one place.
type handler func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error)

func handle(h handler) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		resp, err := h(ctx, req, d)
		if err != nil {
			return respond(err)
		}
		return resp, nil
	}
}

func answer(data map[string]any, warnings ...string) *logical.Response {
	return &logical.Response{Data: data, Warnings: warnings}
}
