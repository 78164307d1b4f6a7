// SPDX-License-Identifier: MPL-2.0

//go:build !linux

package pluginutil

// lockMemory does nothing where a process cannot lock all of its memory: a
// server asks for it on every system, and refusing to start would be worse.
func lockMemory() error { return nil }
