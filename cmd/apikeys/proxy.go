// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/apikeys/internal/probe"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/apikeys/internal/sidecar"
)

func runProxy(ctx context.Context, args []string, errs io.Writer) int {
	fs := flag.NewFlagSet("apikeys proxy", flag.ContinueOnError)
	fs.SetOutput(errs)
	f := sidecar.Register(fs)
	if status, done := parseFlags(fs, args); done {
		return status
	}
	if err := sidecar.Serve(ctx, f, errs, nil); err != nil {
		fmt.Fprintln(errs, "apikeys proxy:", err)
		if errors.Is(err, sidecar.ErrBegin) {
			return exitUsage
		}
		return exitFailed
	}
	return exitOK
}

func runHealth(ctx context.Context, args []string, errs io.Writer) int {
	fs := flag.NewFlagSet("apikeys health", flag.ContinueOnError)
	fs.SetOutput(errs)
	f := probe.Register(fs)
	if status, done := parseFlags(fs, args); done {
		return status
	}
	if err := probe.Ask(ctx, f); err != nil {
		fmt.Fprintln(errs, "apikeys:", err)
		if errors.Is(err, probe.ErrUsage) {
			return exitUsage
		}
		return exitFailed
	}
	return exitOK
}

// parseFlags reads a command's flags; done says that the command has nothing more to do.
func parseFlags(fs *flag.FlagSet, args []string) (status int, done bool) {
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK, true
	case err != nil:
		return exitUsage, true
	}
	return exitOK, false
}
