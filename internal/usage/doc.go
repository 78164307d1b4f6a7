// SPDX-License-Identifier: MPL-2.0

// Package usage counts how often keys are used, by whom and with what verdict.
//
// Verification never writes, so uses are counted in memory (Counter) and brought
// to storage now and then: Take hands out what was counted for one record, the
// caller adds it to the record that it has read, trims and writes it, and says
// how that went. What is counted and what is stored have one form, Record, and
// one way to be added together.
//
//	batch := counter.Take(name)
//	batch.AddTo(&rec)
//	rec.Trim(now)
//	if err := write(rec); err != nil {
//		batch.Failed() // back in memory, to be tried again
//	} else {
//		batch.Stored()
//	}
//
// Counts may be lost: those that a process had not written when it died. A write
// that returned an error is taken for one that did not happen, so its counts are
// written again; if it did happen after all, they count twice. This is all the
// care that counts get: what depends on usage, such as a longer grace, depends on
// the times of uses, and these come out right in either case.
//
// A Record is bounded however many versions, keys and labels there are: see Trim.
// The package never asks for the time and never does I/O.
package usage
