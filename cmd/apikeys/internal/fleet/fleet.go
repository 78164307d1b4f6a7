// SPDX-License-Identifier: MPL-2.0

// Package fleet writes what a mount holds for people to look at: one static page, a table,
// a document, or a calendar that teams subscribe to. It reads what an operator may read,
// and never a key.
package fleet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/apikeys/internal/access"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/vaultlogin"
)

// The exit statuses: of what failed, and of what could not begin.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const (
	// maxDetails bounds the roles whose status is read: each is a call.
	maxDetails     = 10000
	defaultDetails = 1000
	// inFlight is how many of those calls are made at the same time.
	inFlight      = 4
	defaultWithin = longestCalendar
	longestWithin = 3660 * day
)

// options are what the command line asks for.
type options struct {
	out, format, owner string
	within             time.Duration
	details            int
	server, namespace  string
	mount              string
}

// format writes a report while it is read.
type format interface {
	// begin is told of a report without roles.
	begin(r *report) error
	role(r *report, ro *role) error
	end(r *report) error
}

// formats by name; the names are the endings of files, too.
var formats = map[string]func(w io.Writer, o *options, now time.Time) format{
	"html": newPage, "csv": newTable, "json": newDocument, "ics": newFeed,
}

func names() string { return strings.Join(slices.Sorted(maps.Keys(formats)), ", ") }

// Run is the command; it returns the exit status.
func Run(ctx context.Context, args []string, out, errs io.Writer) int {
	o, flags, err := parse(args, errs)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintln(errs, "apikeys fleet:", err)
		return exitUsage
	}
	log := slog.New(slog.NewTextHandler(errs, nil))
	opt, err := flags.Options(log)
	if err != nil {
		fmt.Fprintln(errs, "apikeys fleet:", err)
		return exitUsage
	}
	o.server, o.namespace, o.mount = opt.Client.Address(), opt.Client.Namespace(), flags.Mount()
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	defer done.Wait()
	defer cancel()
	session, err := vaultlogin.Start(ctx, &done, opt)
	if err != nil {
		fmt.Fprintln(errs, "apikeys fleet:", err)
		return exitUsage
	}
	file, err := create(o.out, out)
	if err != nil {
		fmt.Fprintln(errs, "apikeys fleet:", err)
		return exitUsage
	}
	defer file.discard()
	m := &mount{session: session, path: o.mount, log: log}
	r, err := m.write(ctx, file, o, time.Now())
	if err == nil {
		err = file.keep()
	}
	if err != nil {
		fmt.Fprintln(errs, "apikeys fleet:", err)
		return exitFailed
	}
	if r.roles == 0 && o.owner != "" {
		fmt.Fprintf(errs, "apikeys fleet: no role has the owner %q; owners are compared letter by letter\n", clean(o.owner, 100))
	}
	return exitOK
}

func parse(args []string, errs io.Writer) (*options, *access.Flags, error) {
	o := &options{}
	set := flag.NewFlagSet("apikeys fleet", flag.ContinueOnError)
	set.SetOutput(errs)
	set.Usage = func() {
		fmt.Fprint(errs, "Usage: apikeys fleet -o fleet.html\n\nReads a mount, and writes a page, a table or a calendar for people to look at. It never reads a key.\n\n")
		set.PrintDefaults()
		fmt.Fprint(errs, "\n", access.Usage)
	}
	set.StringVar(&o.out, "o", "-", "`file` to write, readable by you alone; - is standard output")
	set.StringVar(&o.format, "format", "", "one of "+names()+" (default: by the file's ending, or html)")
	set.StringVar(&o.owner, "owner", "", "only roles of this `owner`, letter by letter")
	within := set.String("within", "90d", "how far ahead to look: a `duration` such as 30d or 12h")
	set.IntVar(&o.details, "details", defaultDetails, "read the status of so many `roles` at most, those in trouble first: each is a call")
	flags := access.Register(set)
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, nil, err
		}
		return nil, nil, errors.New("see apikeys fleet -h")
	}
	given := map[string]bool{}
	set.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var err error
	switch o.within, err = parseSpan(*within); {
	case set.NArg() > 0:
		return nil, nil, fmt.Errorf("%q: is no flag: all that this command takes has a name, such as -o %s", set.Arg(0), set.Arg(0))
	case err != nil || o.within < time.Hour || o.within > longestWithin:
		return nil, nil, fmt.Errorf("-within: %q: must be from 1h to 3660d", *within)
	case o.details < 0 || o.details > maxDetails:
		return nil, nil, fmt.Errorf("-details: %d: must be from 0 to %d", o.details, maxDetails)
	case given["owner"] && o.owner == "":
		return nil, nil, errors.New("-owner: is empty: leave it out for all roles")
	case o.out == "":
		return nil, nil, errors.New("-o: is empty: give a file, or - for standard output")
	case given["format"] && formats[o.format] == nil:
		return nil, nil, fmt.Errorf("-format: %q: is none: give one of %s", o.format, names())
	}
	if !given["format"] {
		o.format = strings.TrimPrefix(filepath.Ext(o.out), ".")
		if formats[o.format] == nil {
			o.format = "html"
		}
	}
	return o, flags, nil
}

// write reads the mount and writes the report. What is held of the roles does not grow
// with their number.
func (m *mount) write(ctx context.Context, w io.Writer, o *options, now time.Time) (*report, error) {
	c, err := m.calendar(ctx, o.within)
	if err != nil {
		return nil, err
	}
	r := newReport(c, o.within, o.owner, o.details)
	err = list(ctx, m, "problems", r.warn, func(name string, k *kinds) error {
		if len(r.kinds) < keptKinds {
			r.kinds[name] = *k
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	f := formats[o.format](w, o, now)
	if err := f.begin(r); err != nil {
		return nil, err
	}
	err = list(ctx, m, "inventory", r.warn, func(name string, ro *role) error {
		ro.Name = name
		if !r.takes(ro) {
			return nil
		}
		r.role(ro)
		return f.role(r, ro)
	})
	if err != nil {
		return nil, err
	}
	if o.format == "html" || o.format == "json" {
		of, err := m.statuses(ctx, r.inspected(o.details))
		if err != nil {
			return nil, err
		}
		r.details(of)
	}
	return r, f.end(r)
}

// warn adds what the server says of the mount as a whole.
func (r *report) warn(texts []string) {
	for _, text := range texts {
		if !slices.Contains(r.warnings, text) {
			r.warnings = append(r.warnings, text)
		}
	}
}

// statuses reads the status of each role.
func (m *mount) statuses(ctx context.Context, roles []string) (map[string]*status, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan string)
	var mu sync.Mutex
	var wg sync.WaitGroup
	of := make(map[string]*status, len(roles))
	for range inFlight {
		wg.Go(func() {
			for name := range work {
				s, err := m.status(ctx, name)
				if err != nil {
					cancel(err)
					continue
				}
				mu.Lock()
				of[name] = s
				mu.Unlock()
			}
		})
	}
	for _, name := range roles {
		select {
		case work <- name:
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return of, nil
}
