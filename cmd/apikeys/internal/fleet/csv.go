// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"
)

// table is the roles for a spreadsheet.
type table struct{ w *csv.Writer }

func newTable(w io.Writer, _ *options, _ time.Time) format {
	t := &table{csv.NewWriter(w)}
	t.w.UseCRLF = true
	return t
}

func (t *table) begin(*report) error {
	return t.w.Write([]string{
		"role", "role_id", "type", "owner", "disabled", "current_version", "key_id", "current_since", "age_days", "expires",
		"next_rotation", "rotation", "previous_version", "previous_until", "previous_last_used", "previous_in_use", "problems",
	})
}

func (t *table) role(r *report, ro *role) error {
	age := ""
	if !ro.CurrentSince.IsZero() {
		age = strconv.Itoa(int(r.now.Sub(ro.CurrentSince.Time) / day))
	}
	row := []string{
		ro.Name, ro.ID, ro.Type, ro.Owner, strconv.FormatBool(ro.Disabled), strconv.Itoa(ro.CurrentVersion), ro.KeyID, ro.CurrentSince.String(), age,
		ro.Expires.String(), ro.NextRotation.String(), ro.Rotation, strconv.Itoa(ro.PreviousVersion), ro.PreviousUntil.String(),
		ro.PreviousLastUsed.String(), strconv.FormatBool(ro.PreviousInUse), strings.Join(ro.Problems, "; "),
	}
	for i := range row {
		row[i] = harmless(row[i])
	}
	return t.w.Write(row)
}

func (t *table) end(*report) error {
	t.w.Flush()
	return t.w.Error()
}

// harmless keeps a spreadsheet from taking a text for a formula.
func harmless(cell string) string {
	if first := strings.TrimLeft(cell, " \u00a0\u3000"); first != "" && strings.ContainsRune("=+-@\t\r\n＝＋－＠", []rune(first)[0]) {
		return "'" + cell
	}
	return cell
}
