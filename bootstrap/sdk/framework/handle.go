// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/helper/license"
	"github.com/hashicorp/vault/sdk/logical"
)

// HandleExistenceCheck implements logical.Backend.
func (b *Backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (checkFound, exists bool, err error) {
	b.once.Do(b.init)

	switch req.Operation {
	case logical.CreateOperation, logical.UpdateOperation:
	default:
		return false, false, fmt.Errorf("incorrect operation type %v for an existence check", req.Operation)
	}

	path, captures := b.route(req.Path)
	if path == nil {
		return false, false, logical.ErrUnsupportedPath
	}
	if path.ExistenceCheck == nil {
		return false, false, nil
	}

	data := &FieldData{Raw: mergeCaptures(req.Data, captures), Schema: path.Fields}
	if err := data.Validate(); err != nil {
		return false, false, errutil.UserError{Err: err.Error()}
	}
	exists, err = path.ExistenceCheck(ctx, req, data)
	return true, exists, err
}

// mergeCaptures lets the path win over the body.
func mergeCaptures(body map[string]interface{}, captures map[string]string) map[string]interface{} {
	raw := make(map[string]interface{}, len(body)+len(captures))
	maps.Copy(raw, body)
	for name, value := range captures {
		raw[name] = value
	}
	return raw
}

// HandleRequest implements logical.Backend.
func (b *Backend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	b.once.Do(b.init)

	switch req.Operation {
	case logical.RenewOperation, logical.RevokeOperation:
		return b.handleRevokeRenew(ctx, req)
	case logical.RollbackOperation:
		return b.handleRollback(ctx, req)
	case logical.RotationOperation:
		return b.handleRotation(ctx, req)
	case logical.HelpOperation:
		if req.Path == "" {
			return b.handleRootHelp(req)
		}
	}

	path, captures := b.route(req.Path)
	if path == nil {
		return nil, logical.ErrUnsupportedPath
	}
	if path.FeatureRequired != license.FeatureNone && !b.System().HasFeature(path.FeatureRequired) {
		return nil, logical.CodedError(http.StatusUnauthorized, "Feature Not Enabled")
	}

	callback, err := b.callback(path, req.Operation)
	if err != nil {
		return nil, err
	}

	data := &FieldData{Raw: mergeCaptures(req.Data, captures), Schema: path.Fields}
	if req.Operation != logical.HelpOperation {
		if err := data.Validate(); err != nil {
			return logical.ErrorResponse("Field validation failed: %s", err.Error()), nil
		}
	}

	// The callback may change what it is given.
	warnings := inputWarnings(path, req.Data, captures)
	resp, err := callback(ctx, req, data)
	if err == nil && resp != nil {
		for _, warning := range warnings {
			resp.AddWarning(warning)
		}
	}
	return resp, err
}

// callback finds who answers an operation on a path, or why nobody does here.
func (b *Backend) callback(path *Path, op logical.Operation) (OperationFunc, error) {
	var callback OperationFunc
	if path.Operations == nil {
		callback = path.Callbacks[op]
	} else if handler, ok := path.Operations[op]; ok {
		if b.mustForward(handler.Properties()) {
			return nil, logical.ErrReadOnly
		}
		callback = handler.Handler()
	}
	if callback == nil && op == logical.HelpOperation {
		callback = path.help(b)
	}
	if callback == nil {
		return nil, logical.ErrUnsupportedOperation
	}
	return callback, nil
}

func (b *Backend) mustForward(props OperationProperties) bool {
	system := b.System()
	if system == nil {
		return false
	}
	state := system.ReplicationState()
	if props.ForwardPerformanceStandby && state.HasState(consts.ReplicationPerformanceStandby) {
		return true
	}
	return props.ForwardPerformanceSecondary && !system.LocalMount() && state.HasState(consts.ReplicationPerformanceSecondary)
}

// inputWarnings tells the client which of its parameters made no difference.
func inputWarnings(path *Path, body map[string]interface{}, captures map[string]string) []string {
	var ignored, replaced []string
	for name, value := range body {
		if !path.TakesArbitraryInput && path.Fields[name] == nil {
			ignored = append(ignored, name)
		}
		if _, captured := captures[name]; captured && value != nil {
			replaced = append(replaced, name)
		}
	}
	slices.Sort(ignored)
	slices.Sort(replaced)

	var warnings []string
	if len(ignored) > 0 {
		warnings = append(warnings, fmt.Sprintf("Endpoint ignored these unrecognized parameters: %v", ignored))
	}
	if len(replaced) > 0 {
		warnings = append(warnings, fmt.Sprintf("Endpoint replaced the value of these parameters with the values captured from the endpoint's path: %v", replaced))
	}
	return warnings
}

func (b *Backend) handleRevokeRenew(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	if req.Operation == logical.RenewOperation && req.Auth != nil {
		if b.AuthRenew == nil {
			return logical.ErrorResponse("this auth type doesn't support renew"), nil
		}
		return b.AuthRenew(ctx, req, nil)
	}

	if req.Secret == nil {
		return nil, errors.New("request has no secret")
	}
	secretType, ok := req.Secret.InternalData["secret_type"].(string)
	if !ok {
		return nil, errors.New("secret is unsupported by this backend")
	}
	secret := b.Secret(secretType)
	if secret == nil {
		return nil, errors.New("secret is unsupported by this backend")
	}
	if req.Operation == logical.RenewOperation {
		return secret.HandleRenew(ctx, req)
	}
	return secret.HandleRevoke(ctx, req)
}

func (b *Backend) handleRotation(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	if b.RotateCredential == nil {
		return nil, logical.ErrUnsupportedOperation
	}
	if err := b.RotateCredential(ctx, req); err != nil {
		return nil, err
	}
	return &logical.Response{}, nil
}
