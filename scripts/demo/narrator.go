// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// narrator prints what happens with the time at which it happens. Two parts of the story may speak.
type narrator struct {
	mu      sync.Mutex
	out     io.Writer
	started time.Time
	// pace is what the teller waits before each sentence, so that one can follow.
	pace time.Duration
}

func newNarrator(out io.Writer, pace time.Duration) *narrator {
	return &narrator{out: out, started: time.Now(), pace: pace}
}

// tell waits as long as it takes to read what was said before, then says the next thing.
func (n *narrator) tell(ctx context.Context, format string, args ...any) {
	pause := time.NewTimer(n.pace)
	defer pause.Stop()
	select {
	case <-ctx.Done():
	case <-pause.C:
	}
	n.say(format, args...)
}

// say tells something.
func (n *narrator) say(format string, args ...any) {
	n.line(fmt.Sprintf("%5.1fs  ", time.Since(n.started).Seconds()), format, args...)
}

// do shows a command as one would type it.
func (n *narrator) do(format string, args ...any) {
	n.line("        $ ", format, args...)
}

// show prints what came back.
func (n *narrator) show(format string, args ...any) {
	n.line("          ", format, args...)
}

// chapter starts a new part.
func (n *narrator) chapter(title string) {
	n.line("\n", "── %s %s", title, strings.Repeat("─", max(3, 72-len([]rune(title)))))
}

func (n *narrator) line(head, format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fmt.Fprintf(n.out, head+format+"\n", args...)
}
