// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/helper/license"
	"github.com/hashicorp/vault/sdk/logical"
)

// answer returns a handler that answers with its name and what it was given.
func answer(name string) OperationFunc {
	return func(_ context.Context, _ *logical.Request, data *FieldData) (*logical.Response, error) {
		return &logical.Response{Data: map[string]interface{}{"by": name, "raw": maps.Clone(data.Raw)}}, nil
	}
}

func handlers(ops map[logical.Operation]OperationFunc) map[logical.Operation]OperationHandler {
	out := make(map[logical.Operation]OperationHandler)
	for op, callback := range ops {
		out[op] = &PathOperation{Callback: callback}
	}
	return out
}

func reads(name string) map[logical.Operation]OperationHandler {
	return handlers(map[logical.Operation]OperationFunc{logical.ReadOperation: answer(name)})
}

func handle(t *testing.T, b *Backend, op logical.Operation, path string, data map[string]interface{}) (*logical.Response, error) {
	t.Helper()
	req := logical.TestRequest(t, op, path)
	req.Data = data
	return b.HandleRequest(context.Background(), req)
}

func TestRouting(t *testing.T) {
	b := &Backend{Paths: PathAppend(
		[]*Path{{Pattern: "a/?"}, {Pattern: "a/" + GenericNameRegex("name")}},
		[]*Path{
			{Pattern: "a/later"},
			{Pattern: "^b$"},
			{Pattern: "at/" + GenericNameWithAtRegex("name")},
			{Pattern: "opt" + OptionalParamRegex("rest")},
			{Pattern: "all/" + MatchAllRegex("rest")},
			{Pattern: "x|y"},
		},
	)}
	for path, want := range map[string]string{
		"a":          "^a/?$",
		"a/":         "^a/?$",
		"a/n":        `^a/(?P<name>\w(([\w-.]+)?\w)?)$`,
		"a/n.-m":     `^a/(?P<name>\w(([\w-.]+)?\w)?)$`,
		"a/later":    `^a/(?P<name>\w(([\w-.]+)?\w)?)$`,
		"a/-n":       "",
		"a/n/":       "",
		"a/n@m":      "",
		"aa":         "",
		"b":          "^b$",
		"bb":         "",
		"at/n@m":     `^at/(?P<name>\w(([\w-.@]+)?\w)?)$`,
		"opt":        `^opt(/(?P<rest>.+))?$`,
		"opt/":       "",
		"opt/p/q":    `^opt(/(?P<rest>.+))?$`,
		"all/":       `^all/(?P<rest>.*)$`,
		"all/p/q":    `^all/(?P<rest>.*)$`,
		"x and more": "^x|y$",
		"before y":   "^x|y$",
		"":           "",
	} {
		got := ""
		if p := b.Route(path); p != nil {
			got = p.Pattern
		}
		if got != want {
			t.Errorf("%q goes to %q, want %q", path, got, want)
		}
	}
	TestBackendRoutes(t, b, []string{"a", "b", "all/"})
}

func TestFirstUsePanicsOnMistakes(t *testing.T) {
	create := map[logical.Operation]OperationFunc{logical.CreateOperation: answer("")}
	for name, path := range map[string]*Path{
		"blank pattern":                        {},
		"bad pattern":                          {Pattern: "("},
		"create without existence check":       {Pattern: "a", Operations: handlers(create)},
		"old create without existence check":   {Pattern: "a", Callbacks: create},
		"bad pattern behind one that is right": {Pattern: "a)"},
	} {
		b := &Backend{Paths: []*Path{{Pattern: "fine"}, path}}
		if !panics(func() { _, _ = handle(t, b, logical.ReadOperation, "fine", nil) }) {
			t.Errorf("%s: no panic", name)
		}
	}
}

func TestHandleRequestDispatch(t *testing.T) {
	b := &Backend{Paths: []*Path{
		{Pattern: "both", Operations: reads("operations"), Callbacks: map[logical.Operation]OperationFunc{
			logical.ReadOperation: answer("callbacks"), logical.DeleteOperation: answer("callbacks"),
		}},
		{Pattern: "old", Callbacks: map[logical.Operation]OperationFunc{logical.ReadOperation: answer("old")}},
		{Pattern: "none", Operations: map[logical.Operation]OperationHandler{}, Callbacks: map[logical.Operation]OperationFunc{logical.ReadOperation: answer("callbacks")}},
		{Pattern: "nil", Operations: handlers(map[logical.Operation]OperationFunc{logical.ReadOperation: nil})},
		{Pattern: "first", Operations: handlers(map[logical.Operation]OperationFunc{logical.UpdateOperation: answer("first")})},
		{Pattern: "firs.", Operations: reads("second")},
		{Pattern: "licensed", Operations: reads("licensed"), FeatureRequired: license.Features(1)},
	}}
	if err := b.Setup(context.Background(), logical.TestBackendConfig()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		op   logical.Operation
		path string
		by   string
		err  error
	}{
		{logical.ReadOperation, "both", "operations", nil},
		{logical.DeleteOperation, "both", "", logical.ErrUnsupportedOperation},
		{logical.ReadOperation, "old", "old", nil},
		{logical.UpdateOperation, "old", "", logical.ErrUnsupportedOperation},
		{logical.ReadOperation, "none", "", logical.ErrUnsupportedOperation},
		{logical.ReadOperation, "nil", "", logical.ErrUnsupportedOperation},
		{logical.ReadOperation, "first", "", logical.ErrUnsupportedOperation},
		{logical.ReadOperation, "firsx", "second", nil},
		{logical.ReadOperation, "unknown", "", logical.ErrUnsupportedPath},
		{logical.ReadOperation, "", "", logical.ErrUnsupportedPath},
		{logical.RecoverOperation, "both", "", logical.ErrUnsupportedOperation},
		{"scan", "both", "", logical.ErrUnsupportedOperation},
		{"", "both", "", logical.ErrUnsupportedOperation},
		{logical.RotationOperation, "both", "", logical.ErrUnsupportedOperation},
	} {
		resp, err := handle(t, b, c.op, c.path, nil)
		if err != c.err {
			t.Errorf("%s %s: error is %v, want %v", c.op, c.path, err, c.err)
			continue
		}
		if err == nil && resp.Data["by"] != c.by {
			t.Errorf("%s %s: answered by %v, want %v", c.op, c.path, resp.Data["by"], c.by)
		}
	}

	_, err := handle(t, b, logical.ReadOperation, "licensed", nil)
	if coded, ok := err.(logical.HTTPCodedError); !ok || coded.Code() != 401 || err.Error() != "Feature Not Enabled" {
		t.Errorf("error is %#v", err)
	}
}

func TestHandleRequestData(t *testing.T) {
	fields := map[string]*FieldSchema{
		"name": {Type: TypeNameString},
		"opt":  {Type: TypeString},
		"n":    {Type: TypeInt},
	}
	b := &Backend{Paths: []*Path{
		{Pattern: "a/" + GenericNameRegex("name") + OptionalParamRegex("opt"), Fields: fields, Operations: reads("a")},
		{Pattern: "any/" + MatchAllRegex("opt"), Fields: fields, Operations: reads("any"), TakesArbitraryInput: true},
		{Pattern: "badopt(/" + GenericNameRegex("name") + ")?", Fields: fields, Operations: reads("badopt")},
	}}
	for _, c := range []struct {
		path     string
		data     map[string]interface{}
		raw      map[string]interface{}
		warnings []string
	}{
		{"a/x", nil, map[string]interface{}{"name": "x", "opt": ""}, nil},
		{"a/x/y/z", map[string]interface{}{"n": "5"}, map[string]interface{}{"name": "x", "opt": "y/z", "n": "5"}, nil},
		{
			"a/x",
			map[string]interface{}{"name": "other", "opt": nil, "zz": 1, "b": nil},
			map[string]interface{}{"name": "x", "opt": "", "zz": 1, "b": nil},
			[]string{
				"Endpoint ignored these unrecognized parameters: [b zz]",
				"Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [name]",
			},
		},
		{"any/", map[string]interface{}{"zz": 1}, map[string]interface{}{"opt": "", "zz": 1}, nil},
	} {
		resp, err := handle(t, b, logical.ReadOperation, c.path, c.data)
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		if !reflect.DeepEqual(resp.Data["raw"], c.raw) {
			t.Errorf("%s: data is %v, want %v", c.path, resp.Data["raw"], c.raw)
		}
		if !slices.Equal(resp.Warnings, c.warnings) {
			t.Errorf("%s: warnings are %q, want %q", c.path, resp.Warnings, c.warnings)
		}
	}

	// An optional group that took no part is set to "", which is no name.
	for path, data := range map[string]map[string]interface{}{"badopt": nil, "a/x": {"n": "many"}} {
		resp, err := handle(t, b, logical.ReadOperation, path, data)
		if err != nil || !resp.IsError() {
			t.Errorf("%s: got %v, %v", path, resp, err)
			continue
		}
		const prefix = "Field validation failed: error converting input for field "
		if text := resp.Error().Error(); len(text) < len(prefix) || text[:len(prefix)] != prefix {
			t.Errorf("%s: %s", path, text)
		}
	}
}

func TestWarningsAreSorted(t *testing.T) {
	pattern, data := "p", map[string]interface{}{}
	for _, letter := range "abcdefgh" {
		pattern += "/" + GenericNameRegex(string(letter))
		data[string(letter)] = "x"
		data["un"+string(letter)] = "x"
	}
	b := &Backend{Paths: []*Path{{Pattern: pattern, Operations: reads("")}}}
	resp, err := handle(t, b, logical.ReadOperation, "p/1/2/3/4/5/6/7/8", data)
	want := []string{
		"Endpoint ignored these unrecognized parameters: [a b c d e f g h una unb unc und une unf ung unh]",
		"Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [a b c d e f g h]",
	}
	if err != nil || !slices.Equal(resp.Warnings, want) {
		t.Errorf("warnings are %q, %v, want %q", resp.Warnings, err, want)
	}
}

func TestHandleRequestResults(t *testing.T) {
	failure := errors.New("failed")
	b := &Backend{Paths: []*Path{{Pattern: "a", Operations: handlers(map[logical.Operation]OperationFunc{
		logical.ReadOperation: func(context.Context, *logical.Request, *FieldData) (*logical.Response, error) {
			return logical.ErrorResponse("both"), failure
		},
		logical.UpdateOperation: func(context.Context, *logical.Request, *FieldData) (*logical.Response, error) {
			return nil, nil
		},
	})}}}
	data := map[string]interface{}{"unknown": 1}
	resp, err := handle(t, b, logical.ReadOperation, "a", data)
	if err != failure || !resp.IsError() || len(resp.Warnings) != 0 {
		t.Errorf("got %v, %v", resp, err)
	}
	if resp, err := handle(t, b, logical.UpdateOperation, "a", data); resp != nil || err != nil {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestForwarding(t *testing.T) {
	op := func(standby, secondary bool) map[logical.Operation]OperationHandler {
		return map[logical.Operation]OperationHandler{logical.ReadOperation: &PathOperation{
			Callback: answer(""), ForwardPerformanceStandby: standby, ForwardPerformanceSecondary: secondary,
		}}
	}
	b := &Backend{Paths: []*Path{
		{Pattern: "standby", Operations: op(true, false)},
		{Pattern: "secondary", Operations: op(false, true)},
		{Pattern: "neither", Operations: op(false, false)},
	}}
	for _, c := range []struct {
		view      logical.SystemView
		forwarded []string
	}{
		{nil, nil},
		{logical.StaticSystemView{}, nil},
		{logical.StaticSystemView{ReplicationStateVal: consts.ReplicationPerformanceStandby}, []string{"standby"}},
		{logical.StaticSystemView{ReplicationStateVal: consts.ReplicationPerformanceSecondary}, []string{"secondary"}},
		{logical.StaticSystemView{ReplicationStateVal: consts.ReplicationPerformanceSecondary, LocalMountVal: true}, nil},
		{logical.StaticSystemView{ReplicationStateVal: consts.ReplicationPerformanceStandby, LocalMountVal: true}, []string{"standby"}},
	} {
		if err := b.Setup(context.Background(), &logical.BackendConfig{System: c.view}); err != nil {
			t.Fatal(err)
		}
		var forwarded []string
		for _, path := range []string{"standby", "secondary", "neither"} {
			_, err := handle(t, b, logical.ReadOperation, path, nil)
			if err == logical.ErrReadOnly {
				forwarded = append(forwarded, path)
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(forwarded, c.forwarded) {
			t.Errorf("%+v: forwarded %q, want %q", c.view, forwarded, c.forwarded)
		}
	}
}

func TestExistenceCheck(t *testing.T) {
	failure := errors.New("failed")
	fields := map[string]*FieldSchema{"name": {Type: TypeString}, "n": {Type: TypeInt}}
	b := &Backend{Paths: []*Path{
		{Pattern: "a/" + GenericNameRegex("name"), Fields: fields, ExistenceCheck: func(_ context.Context, _ *logical.Request, data *FieldData) (bool, error) {
			if data.Get("name") == "broken" {
				return false, failure
			}
			return data.Get("name") == "there", nil
		}},
		{Pattern: "unchecked"},
	}}
	for _, c := range []struct {
		op            logical.Operation
		path          string
		data          map[string]interface{}
		found, exists bool
		err           error
	}{
		{logical.UpdateOperation, "a/there", nil, true, true, nil},
		{logical.CreateOperation, "a/there", map[string]interface{}{"name": "not"}, true, true, nil},
		{logical.UpdateOperation, "a/not", nil, true, false, nil},
		{logical.UpdateOperation, "a/broken", nil, true, false, failure},
		{logical.UpdateOperation, "unchecked", nil, false, false, nil},
		{logical.UpdateOperation, "unknown", nil, false, false, logical.ErrUnsupportedPath},
	} {
		req := &logical.Request{Operation: c.op, Path: c.path, Data: c.data}
		found, exists, err := b.HandleExistenceCheck(context.Background(), req)
		if found != c.found || exists != c.exists || err != c.err {
			t.Errorf("%s: got %v, %v, %v", c.path, found, exists, err)
		}
	}

	found, exists, err := b.HandleExistenceCheck(context.Background(), &logical.Request{
		Operation: logical.UpdateOperation, Path: "a/x", Data: map[string]interface{}{"n": "many"},
	})
	if found || exists || !errors.As(err, &errutil.UserError{}) {
		t.Errorf("got %v, %v, %#v", found, exists, err)
	}
	found, exists, err = b.HandleExistenceCheck(context.Background(), &logical.Request{Operation: logical.ReadOperation, Path: "a/there"})
	if found || exists || err == nil {
		t.Errorf("a read has an existence check: %v, %v, %v", found, exists, err)
	}
}

func TestRotate(t *testing.T) {
	failure := errors.New("failed")
	var result error
	b := &Backend{RotateCredential: func(context.Context, *logical.Request) error { return result }}
	if resp, err := handle(t, b, logical.RotationOperation, "", nil); resp == nil || err != nil {
		t.Errorf("got %v, %v", resp, err)
	}
	result = failure
	if resp, err := handle(t, b, logical.RotationOperation, "", nil); resp != nil || err != failure {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestLifecycle(t *testing.T) {
	ctx := context.Background()
	var calls []string
	failure := errors.New("failed")
	b := &Backend{
		BackendType:    logical.TypeLogical,
		RunningVersion: "v1.2.3",
		PathsSpecial:   &logical.Paths{Root: []string{"r"}},
		InitializeFunc: func(context.Context, *logical.InitializationRequest) error {
			calls = append(calls, "init")
			return failure
		},
		Clean:      func(context.Context) { calls = append(calls, "clean") },
		Invalidate: func(_ context.Context, key string) { calls = append(calls, "invalidate "+key) },
	}
	if b.System() != nil || b.Logger() == nil || b.GetRandomReader() == nil {
		t.Error("wrong before setup")
	}
	config := logical.TestBackendConfig()
	config.Logger = hclog.NewNullLogger()
	if err := b.Setup(ctx, config); err != nil {
		t.Fatal(err)
	}
	if b.System() != config.System || b.Logger() != config.Logger {
		t.Error("wrong after setup")
	}
	if b.Type() != logical.TypeLogical || b.PluginVersion().Version != "v1.2.3" || b.SpecialPaths() != b.PathsSpecial {
		t.Error("wrong properties")
	}
	if err := b.Initialize(ctx, &logical.InitializationRequest{}); err != failure {
		t.Errorf("Initialize: %v", err)
	}
	b.InvalidateKey(ctx, "k")
	b.Cleanup(ctx)
	if want := []string{"init", "invalidate k", "clean"}; !slices.Equal(calls, want) {
		t.Errorf("calls are %q, want %q", calls, want)
	}

	empty := &Backend{}
	empty.InvalidateKey(ctx, "k")
	empty.Cleanup(ctx)
	if err := empty.Initialize(ctx, nil); err != nil || empty.Type() != logical.TypeUnknown || empty.SpecialPaths() != nil {
		t.Error("wrong when empty")
	}
}

func TestWriteSafeReplicationState(t *testing.T) {
	for _, c := range []struct {
		state consts.ReplicationState
		local bool
		want  bool
	}{
		{0, false, true},
		{consts.ReplicationPerformancePrimary, false, true},
		{consts.ReplicationPerformanceSecondary, false, false},
		{consts.ReplicationPerformanceSecondary, true, true},
		{consts.ReplicationDRSecondary, true, false},
		{consts.ReplicationPerformanceStandby, true, false},
		{consts.ReplicationPerformanceSecondary | consts.ReplicationPerformanceStandby, true, false},
		{consts.ReplicationDRPrimary | consts.ReplicationPerformanceDisabled, false, true},
	} {
		b := &Backend{system: logical.StaticSystemView{ReplicationStateVal: c.state, LocalMountVal: c.local}}
		if got := b.WriteSafeReplicationState(); got != c.want {
			t.Errorf("%v local %v: %v", c.state.StateStrings(), c.local, got)
		}
	}
}

type recorder map[string]map[string]interface{}

func (r recorder) RecordObservationFromPlugin(_ context.Context, kind string, data map[string]interface{}) error {
	r[kind] = data
	return nil
}

func TestEventsAndObservations(t *testing.T) {
	ctx := context.Background()
	b := &Backend{}
	if err := b.SendEvent(ctx, "e", &logical.EventData{}); err != ErrNoEvents {
		t.Errorf("SendEvent: %v", err)
	}
	if err := b.RecordObservation(ctx, "o", nil); err != ErrNoObservations {
		t.Errorf("RecordObservation: %v", err)
	}

	sender, observations := logical.NewMockEventSender(), recorder{}
	if err := b.Setup(ctx, &logical.BackendConfig{EventsSender: sender, ObservationRecorder: observations}); err != nil {
		t.Fatal(err)
	}
	event := &logical.EventData{Id: "id"}
	if err := b.SendEvent(ctx, "e", event); err != nil {
		t.Errorf("SendEvent: %v", err)
	}
	if err := b.RecordObservation(ctx, "o", map[string]interface{}{"k": 1}); err != nil {
		t.Errorf("RecordObservation: %v", err)
	}
	if len(sender.Events) != 1 || sender.Events[0].Type != "e" || sender.Events[0].Event != event {
		t.Errorf("events are %v", sender.Events)
	}
	if observations["o"]["k"] != 1 {
		t.Errorf("observations are %v", observations)
	}
}
