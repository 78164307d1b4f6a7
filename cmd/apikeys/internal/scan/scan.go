// SPDX-License-Identifier: MPL-2.0

// Package scan looks for keys of this engine's form where none should be: in files, in
// the history of git repositories and in what is given to it, offline. The checksum
// decides what is a key. Nothing it prints holds more of one than its id.
//
// What it looks at may be somebody's attempt to harm it. It opens plain files only,
// follows no links, runs no program but git, and git on the objects of a repository only,
// under a configuration of its own.
package scan

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/apikeys/internal/access"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// The exit statuses.
const (
	exitNothing = 0 // looked at everything and found nothing
	exitFound   = 1
	exitFailed  = 2 // could not look, or not at everything, or could not report
)

const usage = `Usage: apikeys scan [flags] <file, directory or -> ...

Looks for API keys in files, in directories (in a git work tree without what .gitignore
leaves out, but for tracked files), or in standard input (-). Of a unified diff there
only added lines count. With -history it looks at all that the git repository of each
directory holds, in place of the files.

It ends with 0 if nothing was found, 1 if something was, and 2 if something could not be
looked at or reported.

`

type options struct {
	format   string
	prefixes []string
	except   []string
	history  bool
	ignored  bool
	report   bool
	paths    []string
	server   *access.Flags
}

// Run is the command: it returns the exit status.
func Run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	opt, err := parse(args, errs)
	if errors.Is(err, flag.ErrHelp) {
		return exitNothing
	}
	if err != nil {
		fmt.Fprintln(errs, "apikeys scan:", err)
		return exitFailed
	}
	send := func(*findings) error { return nil }
	if opt.report {
		// What keeps it from reporting is said before it has looked for an hour.
		if send, err = reporter(ctx, opt.server, errs); err != nil {
			fmt.Fprintln(errs, "apikeys scan: -report:", err)
			return exitFailed
		}
	}
	all := newFindings(opt.prefixes, opt.except)
	look(ctx, opt, in, all)

	status := exitNothing
	if len(all.found) > 0 {
		status = exitFound
	}
	if err := write(out, opt.format, all); err != nil {
		fmt.Fprintln(errs, "apikeys scan: output:", err)
		status = exitFailed
	}
	for _, p := range all.sortedProblems() {
		fmt.Fprintln(errs, "apikeys scan:", p)
		status = exitFailed
	}
	fmt.Fprintln(errs, "apikeys scan:", all.summary())
	if err := send(all); err != nil {
		fmt.Fprintln(errs, "apikeys scan: -report:", shown(strings.Join(strings.Fields(err.Error()), " ")))
		status = exitFailed
	}
	return status
}

func parse(args []string, errs io.Writer) (*options, error) {
	opt := &options{}
	set := flag.NewFlagSet("apikeys scan", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&opt.format, "format", "text", "text, json or sarif: the `form` of the output")
	set.Func("prefix", "look for keys with these `prefixes` only, such as ak,acme_live (default: any)", func(list string) error {
		opt.prefixes = strings.Split(list, ",")
		for _, p := range opt.prefixes {
			if err := keyformat.ValidPrefix(p); err != nil {
				return fmt.Errorf("%q: %w", p, err)
			}
		}
		return nil
	})
	set.Func("except", "key `ids` to pass over, such as those of examples: a,b", func(list string) error {
		opt.except = strings.Split(list, ",")
		for _, id := range opt.except {
			if len(id) != keyformat.IDLen || !keyformat.ValidID(id) {
				return fmt.Errorf("%q: is not the id of a key", id)
			}
		}
		return nil
	})
	set.BoolVar(&opt.history, "history", false, "look at all that the git repositories of the directories hold, in place of the files")
	set.BoolVar(&opt.ignored, "ignored", false, "look at files that .gitignore leaves out, too")
	set.BoolVar(&opt.report, "report", false, "report what is found to the engine, which acts on it: the keys are sent to the server")
	opt.server = access.Register(set)
	err := set.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(errs, usage)
		set.SetOutput(errs)
		set.PrintDefaults()
		fmt.Fprint(errs, "\nThe flags for a server matter with -report. "+access.Usage)
		return nil, err
	case err != nil:
		return nil, err
	}
	opt.paths = set.Args()
	switch {
	case len(opt.paths) == 0:
		return nil, errors.New("what should it look at? Give files, directories, or - for standard input")
	case !slices.Contains([]string{"text", "json", "sarif"}, opt.format):
		return nil, fmt.Errorf("-format: %q: is none: give text, json or sarif", opt.format)
	case slices.Contains(opt.paths, stdin) && (len(opt.paths) > 1 || opt.history):
		return nil, errors.New("-: standard input stands alone, and has no history")
	}
	if name := hook(); opt.report && name != "" {
		return nil, fmt.Errorf("-report: is not for a hook of git (%s is set): a key that is refused there has not leaked, and would be killed", name)
	}
	return opt, nil
}

// hook is a variable that git, or a manager of its hooks, has set for a hook; "" if there
// is none.
func hook() string {
	for _, name := range []string{"GIT_DIR", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_QUARANTINE_PATH", "PRE_COMMIT"} {
		if _, ok := os.LookupEnv(name); ok {
			return name
		}
	}
	return ""
}

func look(ctx context.Context, opt *options, in io.Reader, all *findings) {
	switch {
	case opt.paths[0] == stdin:
		scanInput(until{ctx, in}, all)
	case opt.history:
		for _, path := range opt.paths {
			scanHistory(ctx, path, all)
		}
	default:
		scanFiles(ctx, opt.paths, opt.ignored, all)
	}
	if err := ctx.Err(); err != nil {
		all.problem("the scan", errors.New("was interrupted"))
	}
}

// quiet is what a session logs to: what goes wrong with it is in the error of the call.
var quiet = slog.New(slog.DiscardHandler)

func write(out io.Writer, format string, all *findings) error {
	w := bufio.NewWriter(out)
	var err error
	switch format {
	case "json":
		err = writeJSON(w, all)
	case "sarif":
		err = writeSARIF(w, all)
	default:
		writeText(w, all)
	}
	return errors.Join(err, w.Flush())
}
