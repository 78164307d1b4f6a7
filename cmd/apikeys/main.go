// SPDX-License-Identifier: MPL-2.0

// Command apikeys is the program beside the engine. `apikeys edge` verifies keys in
// front of a gateway, `apikeys proxy` adds them to the requests of a program, `apikeys
// scan` finds them where none should be, and `apikeys fleet` writes what a mount holds
// for people to look at.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/apikeys/internal/fleet"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/apikeys/internal/gate"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/apikeys/internal/scan"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version"
)

// The exit statuses: of what failed or was found, and of what could not begin.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const usage = `Usage: apikeys <command> [flags]

  edge     verify API keys for a gateway, also while Vault is away
  proxy    pass requests on to an API, with the current key
  scan     find API keys in files, git history and diffs
  fleet    write a page, a table or a calendar of all keys' ages, rotations and problems
  health   ask an address of edge or proxy once, for probes
  version  say which version this is, and what it was built from

apikeys <command> -h tells the flags of a command.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// streams are what a command reads and writes.
type streams struct {
	in        io.Reader
	out, errs io.Writer
}

// commands run until they are done or ctx ends, and return the exit status.
var commands = map[string]func(ctx context.Context, args []string, s streams) int{
	"edge":  func(ctx context.Context, args []string, s streams) int { return runEdge(ctx, args, s.out, s.errs) },
	"proxy": func(ctx context.Context, args []string, s streams) int { return runProxy(ctx, args, s.errs) },
	"scan": func(ctx context.Context, args []string, s streams) int {
		return scan.Run(ctx, args, s.in, s.out, s.errs)
	},
	"fleet":  func(ctx context.Context, args []string, s streams) int { return fleet.Run(ctx, args, s.out, s.errs) },
	"health": func(ctx context.Context, args []string, s streams) int { return runHealth(ctx, args, s.errs) },
}

func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(errs, usage)
		return exitUsage
	}
	if command, ok := commands[args[0]]; ok {
		return command(ctx, args[1:], streams{in, out, errs})
	}
	switch args[0] {
	case "version", "-version", "--version":
		fmt.Fprintf(out, "apikeys %s\n%s\n", version.Version, version.Built())
		return exitOK
	case "help", "-h", "-help", "--help":
		fmt.Fprint(out, usage)
		return exitOK
	default:
		fmt.Fprintf(errs, "apikeys: %q is no command\n\n%s", args[0], usage)
		return exitUsage
	}
}

func runEdge(ctx context.Context, args []string, out, errs io.Writer) int {
	fs := flag.NewFlagSet("apikeys edge", flag.ContinueOnError)
	fs.SetOutput(errs)
	file := fs.String("config", "", "the configuration `file`, in HCL")
	check := fs.Bool("check", false, "check the configuration, and end")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	if *file == "" || fs.NArg() > 0 {
		fmt.Fprintln(errs, "apikeys edge: give -config <file>, and nothing else")
		return exitUsage
	}
	if *check {
		if err := gate.Check(*file); err != nil {
			fmt.Fprintln(errs, "apikeys:", err)
			return exitUsage
		}
		fmt.Fprintln(out, "the configuration is in order")
		return exitOK
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	if err := gate.Check(*file); err != nil {
		fmt.Fprintln(errs, "apikeys:", err)
		return exitUsage
	}
	if err := gate.Serve(ctx, *file, errs, reload, nil); err != nil {
		fmt.Fprintln(errs, "apikeys:", err)
		if errors.Is(err, gate.ErrBegin) {
			return exitUsage
		}
		return exitFailed
	}
	return exitOK
}
