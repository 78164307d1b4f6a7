// SPDX-License-Identifier: MPL-2.0

package pluginutil

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/metadata"
)

func TestMetadataMode(t *testing.T) {
	for _, c := range []struct {
		vault, bao string
		setBao     bool
		want       bool
	}{
		{vault: "", want: false},
		{vault: "true", want: true},
		{vault: "1", want: false},
		{vault: "false", bao: "true", setBao: true, want: true},
		{vault: "true", bao: "", setBao: true, want: false},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			t.Setenv("VAULT_PLUGIN_METADATA_MODE", c.vault)
			if c.setBao {
				t.Setenv("BAO_PLUGIN_METADATA_MODE", c.bao)
			}
			if got := InMetadataMode(); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestMlockOnlyOnDemand(t *testing.T) {
	t.Setenv(PluginMlockEnabled, "false")
	if err := OptionallyEnableMlock(); err != nil {
		t.Error(err)
	}
}

func TestMultiplexID(t *testing.T) {
	incoming := func(ids ...string) context.Context {
		md := metadata.MD{MultiplexingCtxKey: ids}
		return metadata.NewIncomingContext(context.Background(), md)
	}
	if id, err := GetMultiplexIDFromContext(incoming("a1")); err != nil || id != "a1" {
		t.Errorf("got %q, %v", id, err)
	}
	if _, err := GetMultiplexIDFromContext(incoming()); !errors.Is(err, ErrNoMultiplexingIDFound) {
		t.Errorf("none: %v", err)
	}
	for name, ctx := range map[string]context.Context{
		"no metadata": context.Background(),
		"two":         incoming("a", "b"),
		"empty":       incoming(""),
	} {
		if id, err := GetMultiplexIDFromContext(ctx); err == nil {
			t.Errorf("%s: got %q", name, id)
		}
	}
}

func TestIdentityTokenStaysOutOfText(t *testing.T) {
	token := IdentityToken("the value")
	for _, format := range []string{"%s", "%v", "%+v", "%#v"} {
		if got := fmt.Sprintf(format, token); got != redactedToken {
			t.Errorf("%s: %s", format, got)
		}
	}
	if token.Token() != "the value" {
		t.Errorf("got %q", token.Token())
	}
}

func TestCtxCancelIfCanceled(t *testing.T) {
	outer, end := context.WithCancel(context.Background())
	called := make(chan struct{})
	quit := CtxCancelIfCanceled(func() { close(called) }, outer)
	defer close(quit)
	end()
	<-called
}
