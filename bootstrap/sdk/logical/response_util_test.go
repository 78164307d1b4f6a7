// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/hashicorp/errwrap"
	"github.com/hashicorp/go-multierror"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/wrapping"
)

func TestRespondErrorCommonWithoutError(t *testing.T) {
	type m = map[string]interface{}
	for _, c := range []struct {
		op   Operation
		resp *Response
		want int
	}{
		{ReadOperation, nil, 404},
		{HeaderOperation, nil, 404},
		{ReadOperation, &Response{}, 0},
		{UpdateOperation, nil, 0},
		{CreateOperation, nil, 0},
		{PatchOperation, nil, 0},
		{DeleteOperation, nil, 0},
		{ListOperation, nil, 404},
		{ListOperation, &Response{}, 404},
		{ListOperation, &Response{Data: m{}}, 404},
		{ListOperation, &Response{Warnings: []string{"w"}}, 0},
		{ListOperation, &Response{Data: m{"key_info": 1}}, 0},
		{ListOperation, &Response{Data: m{"keys": nil}}, 0},
		{ListOperation, &Response{Data: m{"keys": []string{}}}, 404},
		{ListOperation, &Response{Data: m{"keys": []string{}}, WrapInfo: &wrapping.ResponseWrapInfo{}}, 0},
		{ListOperation, &Response{Data: m{"keys": []string{}}, Warnings: []string{"w"}}, 404},
		{ListOperation, &Response{Data: m{"keys": []string{"a"}}}, 0},
		{ListOperation, &Response{Data: m{"keys": []interface{}{}}}, 404},
		{ListOperation, &Response{Data: m{"keys": []interface{}{"a"}}}, 0},
		{ListOperation, &Response{Data: m{"keys": []interface{}{1}}}, 500},
		{ListOperation, &Response{Data: m{"keys": "a"}}, 500},
		{ReadOperation, &Response{Data: m{"keys": "a"}}, 0},
	} {
		got, err := RespondErrorCommon(&Request{Operation: c.op}, c.resp, nil)
		if got != c.want || err != nil {
			t.Errorf("%s %v: got %d, %v, want %d", c.op, c.resp, got, err, c.want)
		}
	}
}

func TestRespondErrorCommonWithError(t *testing.T) {
	refusal := ErrorResponse("no")
	for _, c := range []struct {
		resp *Response
		err  error
		want int
		text string
	}{
		{refusal, nil, 400, "no"},
		{nil, errors.New("x"), 500, "x"},
		{&Response{}, errors.New("x"), 400, "x"},
		{refusal, errors.New("x"), 400, "no"},
		{nil, &StatusBadRequest{Err: "bad"}, 400, "bad"},
		{nil, fmt.Errorf("w: %w", &StatusBadRequest{Err: "bad"}), 400, "w: bad"},
		{nil, ErrPermissionDenied, 403, "permission denied"},
		{nil, consts.ErrInvalidWrappingToken, 400, consts.ErrInvalidWrappingToken.Error()},
		{nil, ErrUnsupportedOperation, 405, "unsupported operation"},
		{nil, ErrUnsupportedPath, 404, "unsupported path"},
		{nil, ErrInvalidRequest, 400, "invalid request"},
		{refusal, ErrInvalidRequest, 400, "no"},
		{refusal, ErrPermissionDenied, 403, "no"},
		{nil, ErrUpstreamRateLimited, 502, "upstream rate limited"},
		{nil, ErrRateLimitQuotaExceeded, 429, "rate limit quota exceeded"},
		{nil, ErrLeaseCountQuotaExceeded, 429, "lease count quota exceeded"},
		{nil, ErrMissingRequiredState, 412, "required index state not present"},
		{nil, ErrPathFunctionalityRemoved, 404, "functionality on this path has been removed"},
		{nil, ErrRelativePath, 400, "relative paths not supported"},
		{nil, ErrInvalidCredentials, 400, "invalid credentials"},
		{nil, ErrReadOnly, 500, "cannot write to readonly storage"},
		{nil, ErrSetupReadOnly, 500, "cannot write to storage during setup"},
		{nil, ErrUnrecoverable, 500, "unrecoverable error"},
		{nil, ErrMultiAuthzPending, 500, "request needs further approval"},
		{nil, ErrPerfStandbyPleaseForward, 500, "please forward to the active node"},
		// Texts are compared whole, along the chain.
		{nil, errors.New("unsupported path"), 404, "unsupported path"},
		{nil, errors.New("x: unsupported path"), 500, "x: unsupported path"},
		{nil, fmt.Errorf("x: %w", ErrUnsupportedPath), 404, "x: unsupported path"},
		{nil, errwrap.Wrapf("x: {{err}}", ErrUnsupportedPath), 404, "x: unsupported path"},
		{nil, &KeyNotFoundError{Err: ErrPermissionDenied}, 403, "permission denied"},
		// The first of the table wins, not the first of the chain.
		{nil, fmt.Errorf("%w", fmt.Errorf("x: %w", errwrap.Wrap(ErrInvalidRequest, ErrPermissionDenied))), 403, "x: invalid request"},
		{nil, &ReplicationCodedError{Msg: "r", Code: 417}, 417, "r"},
	} {
		got, err := RespondErrorCommon(&Request{Operation: ReadOperation}, c.resp, c.err)
		if got != c.want || err == nil || err.Error() != c.text {
			t.Errorf("%v, %v: got %d, %v, want %d, %s", c.resp, c.err, got, err, c.want, c.text)
		}
	}

	got, err := RespondErrorCommon(&Request{}, nil, multierror.Append(nil, &ReplicationCodedError{Msg: "r", Code: 417}, errors.New("other")))
	if merr, ok := err.(*multierror.Error); got != 417 || !ok || len(merr.Errors) != 2 {
		t.Errorf("got %d, %v", got, err)
	}
}

func TestAdjustErrorStatusCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 500},
		{errors.New("x"), 500},
		{consts.ErrSealed, 503},
		{consts.ErrAPILocked, 503},
		{fmt.Errorf("x: %w", consts.ErrSealed), 503},
		{errors.New("http: request body too large"), 413},
		{CodedError(418, "tea: 100%"), 418},
		{fmt.Errorf("x: %w", CodedError(418, "tea")), 500},
		{multierror.Append(nil, errors.New("x"), CodedError(418, "tea")), 418},
		{&StatusBadRequest{Err: "x"}, 500},
	} {
		status := 500
		AdjustErrorStatusCode(&status, c.err)
		if status != c.want {
			t.Errorf("%v: got %d, want %d", c.err, status, c.want)
		}
	}
	if text := CodedError(418, "100%").Error(); text != "100%" {
		t.Errorf("text is %s", text)
	}
}

func TestRespondError(t *testing.T) {
	for _, c := range []struct {
		write func(*httptest.ResponseRecorder)
		code  int
		body  string
	}{
		{func(w *httptest.ResponseRecorder) { RespondError(w, 400, errors.New("no")) }, 400, `{"errors":["no"]}`},
		{func(w *httptest.ResponseRecorder) { RespondError(w, 404, nil) }, 404, `{"errors":[]}`},
		{func(w *httptest.ResponseRecorder) { RespondError(w, 500, CodedError(418, "tea")) }, 418, `{"errors":["tea"]}`},
		{func(w *httptest.ResponseRecorder) { RespondErrorAndData(w, 400, 5, errors.New("no")) }, 400, `{"errors":["no"],"data":5}`},
	} {
		w := httptest.NewRecorder()
		c.write(w)
		if w.Code != c.code || w.Body.String() != c.body+"\n" || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("got %d, %s", w.Code, w.Body)
		}
	}
}
