// SPDX-License-Identifier: MPL-2.0

//go:build !linux

package edge

import "time"

var began = time.Now()

// threadTime stands for what the calling thread has computed, where the system does not
// say: time that passes.
func threadTime() time.Duration { return time.Since(began) }
