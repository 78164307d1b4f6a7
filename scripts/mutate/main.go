// SPDX-License-Identifier: MPL-2.0

// Command mutate changes the code of a package in small ways and sees whether its tests notice. Each
// change, a mutant, is one that a tired programmer could make: a boundary moved by one, a condition
// turned, a call forgotten, two writes swapped.
//
// A sample of the mutants is compiled into one test binary, each beside the function that it changes,
// and the environment says which one is live. A mutant runs only the tests that reach its line. One
// that no test notices survives; either a test is missing, or it changes nothing that can be seen and
// belongs, with the reason, into equivalent.txt.
//
//	go run ./scripts/mutate -pkg ./backend -files '^(role|tick)_' -n 200 -seed 1
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

// options are what the caller may choose.
type options struct {
	pkg        string
	files      *regexp.Regexp
	only       *regexp.Regexp
	again      bool
	alone      bool
	race       bool
	n          int
	seed       uint64
	minimum    float64
	parallel   int
	memory     int // MiB of address space for each test process
	factor     float64
	slack      time.Duration
	cache      string
	equivalent string
	verbose    bool
}

func main() {
	o, err := parseFlags(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "mutate:", err)
		}
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	sum, err := mutate(ctx, o, os.Stdout, os.Stderr)
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(2)
	case sum.share() < o.minimum:
		fmt.Fprintf(os.Stderr, "mutate: less than %.0f %% killed\n", o.minimum)
		os.Exit(1)
	}
}

func parseFlags(args []string) (*options, error) {
	o := &options{}
	var files, only string
	fs := flag.NewFlagSet("mutate", flag.ContinueOnError)
	fs.StringVar(&o.pkg, "pkg", ".", "`package` to change")
	fs.StringVar(&files, "files", "", "`regexp` that the names of the files to change match")
	fs.StringVar(&only, "only", "", "instead of a sample, all mutants whose file:line or identity this `regexp` matches")
	fs.BoolVar(&o.again, "again", false, "instead of a sample, those that survived the run before")
	fs.BoolVar(&o.alone, "alone", false, "compile each mutant into a binary of its own; slow, for doubts about the shared ones")
	fs.BoolVar(&o.race, "race", false, "with the race detector, which notices mutexes that are gone; -memory does not hold then")
	fs.IntVar(&o.n, "n", 200, "size of the sample; 0 is all")
	fs.Uint64Var(&o.seed, "seed", 1, "another seed, another sample")
	fs.Float64Var(&o.minimum, "min", 90, "least share killed, in percent, with which the exit status is 0")
	fs.IntVar(&o.parallel, "p", runtime.NumCPU(), "test processes at the same time")
	fs.IntVar(&o.memory, "memory", 4096, "address space that a test process may use, in MiB; 0 is any")
	fs.Float64Var(&o.factor, "patience", 5, "how many times their usual time tests may take before they count as hanging")
	fs.DurationVar(&o.slack, "slack", 15*time.Second, "what they may take beyond that: a busy machine starts processes slowly")
	fs.StringVar(&o.cache, "cache", "", "`directory` that keeps what each test covers, and the survivors (default: one in the user's cache)")
	fs.StringVar(&o.equivalent, "equivalent", "scripts/mutate/equivalent.txt", "`file` of mutants that change nothing")
	fs.BoolVar(&o.verbose, "v", false, "also say which test killed each mutant")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%s: unexpected argument", fs.Arg(0))
	}
	if o.n < 0 || o.parallel < 1 || o.memory < 0 || o.factor < 1 {
		return nil, errors.New("-n and -memory must not be negative, -p and -patience not less than 1")
	}
	var err error
	if o.files, err = regexp.Compile(files); err != nil {
		return nil, fmt.Errorf("-files: %w", err)
	}
	if only != "" {
		if o.only, err = regexp.Compile(only); err != nil {
			return nil, fmt.Errorf("-only: %w", err)
		}
	}
	return o, nil
}

// mutate does the whole run. What it found is written to out, how it goes to progress.
func mutate(ctx context.Context, o *options, out, progress io.Writer) (*summary, error) {
	tmp, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)

	pkg, err := loadPackage(ctx, o.pkg)
	if err != nil {
		return nil, err
	}
	mutants := pkg.mutants()
	listed, err := readEquivalents(o.equivalent)
	if err != nil {
		return nil, err
	}
	for _, id := range listed.gone(pkg, mutants) {
		fmt.Fprintf(out, "listed as equivalent, but it no longer exists: %s\n", id)
	}

	cache, err := openCache(o.cache, pkg)
	if err != nil {
		return nil, err
	}
	pool, err := candidates(o, cache, listed, mutants)
	if err != nil {
		return nil, err
	}
	if len(pool.all()) == 0 {
		return nil, errors.New("there is nothing to change")
	}

	run := &runner{
		pkg: pkg, tmp: tmp, parallel: o.parallel, memory: o.memory, factor: o.factor, slack: o.slack,
		race: o.race, seed: o.seed, progress: progress,
	}
	if o.race {
		run.memory = 0 // the detector reserves more than any machine has
	}
	cover, err := coverage(ctx, run, cache)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "%d mutants in %d files, %d tests\n", len(pool.all()), pool.files(), len(cover.Tests))
	live, err := build(ctx, run, pool, o.alone)
	if err != nil {
		return nil, err
	}
	if err := run.unchanged(ctx, live, cover); err != nil {
		return nil, err
	}

	fmt.Fprintf(progress, "running %d mutants\n", len(live.mutants))
	started := time.Now()
	sum := &summary{o: o, out: out, progress: progress, built: live}
	err = run.all(ctx, live, cover, sum.add)
	sum.print(time.Since(started))
	if err != nil {
		return nil, err
	}
	return sum, cache.keepSurvivors(sum.survivors(), o)
}
