// SPDX-License-Identifier: MPL-2.0

// Command demo tells what the engine does, on servers of its own, in under a minute. It fails if any
// step does not come out as told.
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	server := flag.String("server", "bin/devserver", "development server binary")
	plugin := flag.String("plugin", "bin/vault-plugin-secrets-apikeys", "plugin binary")
	pace := flag.Duration("pace", 1100*time.Millisecond, "pause before each sentence")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := run(ctx, *server, *plugin, *pace); err != nil {
		fmt.Fprintln(os.Stderr, "\nNot as told:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, plugin string, pace time.Duration) error {
	n := newNarrator(os.Stdout, pace)
	n.say("A development server starts, and launches the plugin as a process of its own.")
	o := options{bin: server, plugin: plugin, token: rand.Text()}
	s, err := startServer(ctx, o)
	if err != nil {
		return err
	}
	story := &story{n: n, client: s.client, options: o}
	if err := story.tell(ctx); err != nil {
		s.kill()
		return err
	}
	if err := s.stop(); err != nil {
		return err
	}
	n.say("The server and the plugin have stopped. That was all of it: `make dev` leaves a server running for you to try.")
	return nil
}
