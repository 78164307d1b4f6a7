// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version"
)

// feed is a calendar as of RFC 5545: rotations, and ends of versions. An event keeps its
// UID when its date moves: a rotation goes by the version that it replaces, an end by the
// version that ends.
type feed struct {
	w     io.Writer
	err   error
	o     *options
	stamp string
	// sequence grows from one feed to the next, so that a date that moved wins over a copy
	// that somebody kept.
	sequence string
}

const icsTime = "20060102T150405Z"

// sequenceStart keeps sequence small enough for the format, and growing.
var sequenceStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func newFeed(w io.Writer, o *options, now time.Time) format {
	now = now.UTC()
	return &feed{w: w, o: o, stamp: now.Format(icsTime), sequence: strconv.FormatInt(int64(max(0, now.Sub(sequenceStart)/time.Minute)), 10)}
}

func (f *feed) begin(*report) error {
	name := "API keys"
	if f.o.owner != "" {
		name += " of " + f.o.owner
	}
	for _, line := range []string{
		"BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//vault-plugin-secrets-apikeys//apikeys fleet " + version.Version + "//EN", "CALSCALE:GREGORIAN",
		"NAME:" + escape(name), "X-WR-CALNAME:" + escape(name), "REFRESH-INTERVAL;VALUE=DURATION:PT1H", "X-PUBLISHED-TTL:PT1H",
		// A calendar needs a component, and a fleet may have no event.
		"BEGIN:VTIMEZONE", "TZID:UTC", "BEGIN:STANDARD", "DTSTART:19700101T000000", "TZOFFSETFROM:+0000", "TZOFFSETTO:+0000", "END:STANDARD", "END:VTIMEZONE",
	} {
		f.line(line)
	}
	return f.err
}

func (f *feed) role(r *report, ro *role) error {
	for _, e := range eventsOf(ro) {
		switch {
		case e.at.After(r.horizon):
		case e.what == rotates:
			e.version = ro.CurrentVersion
			f.event(&e, r.now)
		case !e.at.Before(r.complete):
			f.event(&e, r.now)
		}
	}
	return f.err
}

// end adds the ends that the engine's calendar has: those of every version of a role.
func (f *feed) end(r *report) error {
	for _, name := range slices.Sorted(maps.Keys(r.ending)) {
		for _, c := range r.ending[name] {
			f.event(&event{at: c.Time.Time, what: c.What, role: c.Role, id: c.RoleID, own: c.Owner, version: c.Version}, r.now)
		}
	}
	f.line("END:VCALENDAR")
	return f.err
}

func (f *feed) event(e *event, now time.Time) {
	part, category := "end", "END OF GRACE"
	summary := fmt.Sprintf("%s: version %d ends", e.role, e.version)
	text := fmt.Sprintf("The grace of version %d of %s is over: from then on its key is refused. Whoever still uses it must have read the new one by then.", e.version, e.role)
	switch e.what {
	case rotates:
		part, category = "next", "ROTATION"
		summary = e.role + ": a new key becomes current"
		text = fmt.Sprintf("The key of %s rotates. The one of version %d stays valid for its grace; consumers read the new one.", e.role, e.version)
		if e.version == 0 {
			text = fmt.Sprintf("The key of %s rotates. It has no current key now.", e.role)
		}
	case expires:
		category = "EXPIRY"
		summary = fmt.Sprintf("%s: version %d expires", e.role, e.version)
		text = fmt.Sprintf("The key of version %d of %s expires: from then on it is refused, whoever still uses it.", e.version, e.role)
	}
	if e.at.Before(now) {
		summary += " (overdue)"
	}
	if e.own != "" {
		text += "\nOwner: " + clean(e.own, 512)
	}
	text += fmt.Sprintf("\nLook: vault read %s/status/%s", f.o.mount, e.role)
	for _, line := range []string{
		"BEGIN:VEVENT",
		fmt.Sprintf("UID:%s-v%d-%s@apikeys", e.id, e.version, part),
		"DTSTAMP:" + f.stamp, "SEQUENCE:" + f.sequence,
		"DTSTART:" + e.at.UTC().Format(icsTime),
		"SUMMARY:" + escape(summary), "DESCRIPTION:" + escape(text),
		"CATEGORIES:" + escape(category), "TRANSP:TRANSPARENT",
		"END:VEVENT",
	} {
		f.line(line)
	}
}

// lineOctets is how long a line may be, without its end.
const lineOctets = 75

// line writes a line, folded between characters.
func (f *feed) line(text string) {
	if f.err != nil {
		return
	}
	var b strings.Builder
	room := lineOctets
	for _, c := range text {
		if n := utf8.RuneLen(c); n > room {
			b.WriteString("\r\n ")
			room = lineOctets - 1
		}
		b.WriteRune(c)
		room -= utf8.RuneLen(c)
	}
	b.WriteString("\r\n")
	_, f.err = io.WriteString(f.w, b.String())
}

// escape is a text as a value of type TEXT.
func escape(text string) string {
	text = strings.Map(func(c rune) rune {
		if c != '\n' && c != '\t' && (c < ' ' || c == 0x7f) {
			return -1
		}
		return c
	}, strings.ToValidUTF8(text, ""))
	return strings.NewReplacer(`\`, `\\`, ";", `\;`, ",", `\,`, "\n", `\n`).Replace(text)
}
