// SPDX-License-Identifier: MPL-2.0

package vaultlogin

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"regexp"
)

var notInstance = regexp.MustCompile(`[^A-Za-z0-9._:/-]`)

// Instance is a name for reports of use, in the form that the engine takes: that of the
// host where name is empty, and random characters, since a restart counts its reports
// anew.
func Instance(name string) string {
	if name == "" {
		name, _ = os.Hostname()
	}
	name = notInstance.ReplaceAllString(name, "-")
	var id [6]byte
	_, _ = rand.Read(id[:]) // it never fails
	return name[:min(len(name), 64)] + "-" + hex.EncodeToString(id[:])
}
