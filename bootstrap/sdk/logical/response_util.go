// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/hashicorp/errwrap"
	"github.com/hashicorp/go-multierror"
	"github.com/hashicorp/vault/sdk/helper/consts"
)

// statusByText is tried in order; the texts are compared whole, along the chain of wrapped errors.
var statusByText = []struct {
	err    error
	status int
}{
	{ErrPermissionDenied, http.StatusForbidden},
	{consts.ErrInvalidWrappingToken, http.StatusBadRequest},
	{ErrUnsupportedOperation, http.StatusMethodNotAllowed},
	{ErrUnsupportedPath, http.StatusNotFound},
	{ErrInvalidRequest, http.StatusBadRequest},
	{ErrUpstreamRateLimited, http.StatusBadGateway},
	{ErrRateLimitQuotaExceeded, http.StatusTooManyRequests},
	{ErrLeaseCountQuotaExceeded, http.StatusTooManyRequests},
	{ErrMissingRequiredState, http.StatusPreconditionFailed},
	{ErrPathFunctionalityRemoved, http.StatusNotFound},
	{ErrRelativePath, http.StatusBadRequest},
	{ErrInvalidCredentials, http.StatusBadRequest},
}

// RespondErrorCommon gives the HTTP status and the error to show for what a backend returned. 0 means success.
func RespondErrorCommon(req *Request, resp *Response, err error) (int, error) {
	if err == nil && !resp.IsError() {
		return successStatus(req, resp), nil
	}
	if errwrap.ContainsType(err, new(ReplicationCodedError)) {
		return replicationStatus(err)
	}

	status := http.StatusInternalServerError
	if resp != nil {
		status = http.StatusBadRequest
	}
	if errwrap.ContainsType(err, new(StatusBadRequest)) {
		status = http.StatusBadRequest
	} else if err != nil {
		for _, known := range statusByText {
			if errwrap.Contains(err, known.err.Error()) {
				status = known.status
				break
			}
		}
	}

	if resp.IsError() {
		err = fmt.Errorf("%s", resp.Data["error"].(string))
	}
	return status, err
}

// successStatus makes what is not there a 404.
func successStatus(req *Request, resp *Response) int {
	switch req.Operation {
	case ReadOperation, HeaderOperation:
		if resp == nil {
			return http.StatusNotFound
		}
	case ListOperation:
		if resp == nil {
			return http.StatusNotFound
		}
		if resp.WrapInfo == nil {
			return listStatus(resp)
		}
	}
	return 0
}

func listStatus(resp *Response) int {
	if len(resp.Data) == 0 {
		if len(resp.Warnings) > 0 {
			return 0
		}
		return http.StatusNotFound
	}

	var count int
	switch keys := resp.Data["keys"].(type) {
	case nil:
		return 0
	case []string:
		count = len(keys)
	case []interface{}:
		for _, key := range keys {
			if _, ok := key.(string); !ok {
				return http.StatusInternalServerError
			}
		}
		count = len(keys)
	default:
		return http.StatusInternalServerError
	}
	if count == 0 {
		return http.StatusNotFound
	}
	return 0
}

func replicationStatus(err error) (int, error) {
	var coded *ReplicationCodedError
	var others error
	errwrap.Walk(err, func(e error) {
		switch e := e.(type) {
		case *multierror.Error:
			// Its members follow.
		case *ReplicationCodedError:
			coded = e
		default:
			others = multierror.Append(others, e)
		}
	})
	if others != nil {
		first := fmt.Errorf("errors from both primary and secondary; primary error was %v; secondary errors follow", coded.Msg)
		return coded.Code, multierror.Append(first, others)
	}
	return coded.Code, errors.New(coded.Msg)
}

// AdjustErrorStatusCode changes status where the error knows better.
func AdjustErrorStatusCode(status *int, err error) {
	if members, ok := err.(*multierror.Error); ok {
		for _, e := range members.Errors {
			AdjustErrorStatusCode(status, e)
		}
	}
	if errwrap.Contains(err, consts.ErrSealed.Error()) || errwrap.Contains(err, consts.ErrAPILocked.Error()) {
		*status = http.StatusServiceUnavailable
	}
	if errwrap.Contains(err, "http: request body too large") {
		*status = http.StatusRequestEntityTooLarge
	}
	// Only the outermost error's code counts.
	if coded, ok := err.(HTTPCodedError); ok {
		*status = coded.Code()
	}
}

// RespondError writes an error body.
func RespondError(w http.ResponseWriter, status int, err error) {
	writeError(w, status, err, struct {
		Errors []string `json:"errors"`
	}{errorTexts(err)})
}

// RespondErrorAndData writes an error body with data.
func RespondErrorAndData(w http.ResponseWriter, status int, data interface{}, err error) {
	writeError(w, status, err, struct {
		Errors []string    `json:"errors"`
		Data   interface{} `json:"data"`
	}{errorTexts(err), data})
}

func errorTexts(err error) []string {
	if err == nil {
		return []string{}
	}
	return []string{err.Error()}
}

func writeError(w http.ResponseWriter, status int, err error, body interface{}) {
	AdjustErrorStatusCode(&status, err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The status is out: a client that is gone cannot be told anything more.
	_ = json.NewEncoder(w).Encode(body)
}
