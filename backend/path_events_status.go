// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// testWait is how long a test waits for its answer.
const testWait = 4 * time.Second

// testEndpoint sends a test event and waits a moment for what comes of it.
func (b *backend) testEndpoint(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	e, err := b.endpoint(ctx, req.Storage, in.text("name"))
	if err != nil {
		return nil, err
	}
	cfg, err := b.config(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if cfg.OutboundPaused {
		return nil, refusal.New("name", e.Name, "nothing is sent while the mount's outbound_paused is set", "write config outbound_paused=false first")
	}
	if err := b.assertWriter(ctx, req.Storage); err != nil {
		return nil, err
	}
	f := fact{Type: tellsTest, At: b.clock.Now(), Data: map[string]any{"endpoint": e.Name}}
	if f.Tag, err = b.randomTag(5); err != nil {
		return nil, err
	}
	facts := []fact{f}
	b.numberLoose(facts, "")
	form, err := newRendering(e, b.eventSource())
	if err != nil {
		return nil, err
	}
	wait, cancel := b.clock.WithTimeout(ctx, testWait)
	defer cancel()
	came := make(chan outcome, 1)
	b.outbox.spawn(func() {
		result := outcome{class: classInternal}
		_ = b.guarded("a test of an endpoint", func() error {
			result = b.send(b.outbox.flight, e, form, []*fact{&facts[0]})
			return nil
		})
		b.tested(e.ID, result)
		came <- result
	})
	data := map[string]any{"delivered": false, "error": "", "status": 0, "id": facts[0].nameOf(b.mountTag())}
	select {
	case result := <-came:
		data["delivered"], data["error"], data["status"] = result.class == "", result.class, result.status
		if result.class != "" {
			return answer(data, "the test failed: "+classText(result.class)), nil
		}
		return answer(data), nil
	case <-wait.Done():
		return answer(data, "no answer within 4 seconds: events/"+e.Name+"/status says later what came of it"), nil
	}
}

// classText is what a class of failure means, and what to look at.
func classText(class string) string {
	switch class {
	case "forbidden":
		return "the mount's egress_allow does not let it leave, or its name leads to an address that is not allowed"
	case "unreachable":
		return "no connection, or no answer in time"
	case "tls":
		return "its certificate could not be checked: see ca"
	case "proxy":
		return "egress_proxy could not be reached"
	case "redirect":
		return "it answers with a redirect, which is not followed: write the address it leads to"
	case "status":
		return "it answers with another status than 2xx"
	case classInternal:
		return "the message could not be made: the server's log says why"
	default:
		return class
	}
}

func endpointStatusFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"state":           {Type: framework.TypeString, Description: "ok, failing, stopped (given up by the engine), disabled, or paused (by the mount's outbound_paused).", Required: true},
		"backlog":         {Type: framework.TypeInt, Description: "Events that wait, as far as they are in memory.", Required: true},
		"more":            {Type: framework.TypeBool, Description: "More events wait than are in memory.", Required: true},
		"in_flight":       {Type: framework.TypeInt, Description: "Messages on their way.", Required: true},
		"oldest":          {Type: framework.TypeString, Description: "Since when the oldest of them waits (RFC 3339); empty: none does.", Required: true},
		"last_success":    {Type: framework.TypeString, Description: "When a message was last delivered (RFC 3339).", Required: true},
		"last_attempt":    {Type: framework.TypeString, Description: "When one was last tried (RFC 3339).", Required: true},
		"last_error":      {Type: framework.TypeString, Description: "The class of the last failure; empty after a success.", Required: true},
		"last_status":     {Type: framework.TypeInt, Description: "The HTTP status of the last answer; 0 for none.", Required: true},
		"failing_since":   {Type: framework.TypeString, Description: "Since when it fails (RFC 3339).", Required: true},
		"attempts":        {Type: framework.TypeInt, Description: "Attempts since then.", Required: true},
		"next_attempt":    {Type: framework.TypeString, Description: "When the next one is made (RFC 3339).", Required: true},
		"dropped":         {Type: framework.TypeMap, Description: "Events that were given up: failed (while others were delivered), expired (after 7 days).", Required: true},
		"clock_offset":    {Type: framework.TypeInt, Description: "By how many seconds the endpoint's clock was ahead of this node's, when it last said so.", Required: true},
		"stopped_at":      {Type: framework.TypeString, Description: "When the engine gave it up (RFC 3339); a write with disabled=false or a successful test has it tried again.", Required: true},
		"signing_secrets": {Type: framework.TypeInt, Description: "With how many secrets deliveries are signed.", Required: true},
	}
}

func (b *backend) readEndpointStatus(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	e, err := b.endpoint(ctx, req.Storage, in.text("name"))
	if err != nil {
		return nil, err
	}
	if err := b.assertWriter(ctx, req.Storage); err != nil {
		return nil, err
	}
	cfg, err := b.config(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	v, err := b.postView(ctx, req.Storage, e)
	if err != nil {
		return nil, err
	}
	st := &v.state
	state := "ok"
	switch {
	case e.Disabled:
		state = "disabled"
	case cfg.OutboundPaused:
		state = "paused"
	case !st.Stopped.IsZero():
		state = "stopped"
	case !st.Since.IsZero():
		state = "failing"
	}
	dropped := map[string]any{"failed": int64(0), "expired": int64(0)}
	for why, n := range st.Dropped {
		dropped[why] = n
	}
	return answer(map[string]any{
		"state": state, "backlog": v.waiting, "more": v.more, "in_flight": v.flying, "oldest": stamp(v.oldest),
		"last_success": stamp(st.LastSuccess), "last_attempt": stamp(st.LastAttempt), "last_error": st.LastError, "last_status": st.LastStatus,
		"failing_since": stamp(st.Since), "attempts": st.Attempts, "next_attempt": stamp(st.Next), "dropped": dropped,
		"clock_offset": int64(st.Ahead / time.Second), "stopped_at": stamp(st.Stopped), "signing_secrets": len(e.signers(b.clock.Now())),
	}), nil
}
