// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version"
)

// writeText writes one line for each place.
func writeText(w io.Writer, all *findings) {
	for _, one := range all.sorted() {
		for _, p := range one.places {
			if p.line == 0 {
				fmt.Fprintf(w, "%s: its name holds the key %s\n", one.where, one.key.ID())
			} else {
				fmt.Fprintf(w, "%s:%d:%d: key %s\n", one.where, p.line, p.column, one.key.ID())
			}
		}
		if more := one.count - len(one.places); more > 0 {
			fmt.Fprintf(w, "%s: key %s, %d times more\n", one.where, one.key.ID(), more)
		}
	}
}

// summary says in a line what was done.
func (f *findings) summary() string {
	what := counted(f.files, "file")
	if f.objects > 0 {
		what = counted(f.objects, "object")
	}
	return fmt.Sprintf("%s in %s (%s)", counted(int64(len(f.keys())), "key"), what, size(f.bytes))
}

func counted(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.FormatInt(n, 10) + " " + what + "s"
}

func size(n int64) string {
	switch {
	case n < 10_000:
		return strconv.FormatInt(n, 10) + " bytes"
	case n < 10_000_000:
		return strconv.FormatInt(n/1000, 10) + " kB"
	default:
		return strconv.FormatInt(n/1_000_000, 10) + " MB"
	}
}

// The JSON output is described in docs/scan.md.
type jsonOutput struct {
	Version  string        `json:"version"`
	Complete bool          `json:"complete"`
	LookedAt jsonLooked    `json:"looked_at"`
	Findings []jsonFinding `json:"findings"`
	Problems []jsonProblem `json:"problems"`
}

type jsonLooked struct {
	Files   int64 `json:"files"`
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

type jsonFinding struct {
	KeyID   string      `json:"key_id"`
	Prefix  string      `json:"prefix"`
	Path    string      `json:"path,omitempty"`
	Line    int         `json:"line"`
	Column  int         `json:"column"`
	Count   int         `json:"count"`
	Places  []jsonPlace `json:"places"`
	Commit  string      `json:"commit,omitempty"`
	Object  string      `json:"object,omitempty"`
	Message bool        `json:"message,omitempty"`
}

type jsonPlace struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

type jsonProblem struct {
	Path    string `json:"path"`
	Problem string `json:"problem"`
}

func writeJSON(w io.Writer, all *findings) error {
	o := jsonOutput{
		Version: version.Version, Complete: len(all.problems) == 0,
		LookedAt: jsonLooked{all.files, all.objects, all.bytes},
		Findings: []jsonFinding{}, Problems: []jsonProblem{},
	}
	for _, one := range all.sorted() {
		f := jsonFinding{
			KeyID: one.key.ID(), Prefix: one.key.Prefix(), Path: plain(one.path), Count: one.count,
			Line: one.places[0].line, Column: one.places[0].column,
			Commit: one.commit, Object: one.object, Message: one.message,
		}
		for _, p := range one.places {
			f.Places = append(f.Places, jsonPlace{p.line, p.column})
		}
		o.Findings = append(o.Findings, f)
	}
	for _, p := range all.sortedProblems() {
		o.Problems = append(o.Problems, jsonProblem{plain(p.where), plain(p.text())})
	}
	return writeASCII(w, o)
}

// writeASCII writes JSON in which everything but printable ASCII is escaped: it may be
// shown in a terminal.
func writeASCII(w io.Writer, value any) error {
	raw, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	out := make([]byte, 0, len(raw)+1)
	for len(raw) > 0 {
		r, n := utf8.DecodeRune(raw)
		switch {
		case r == '\n' || r >= ' ' && r <= '~':
			out = append(out, raw[:n]...)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800|r>>10, 0xdc00|r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		raw = raw[n:]
	}
	_, err = w.Write(append(out, '\n'))
	return err
}
