// SPDX-License-Identifier: MPL-2.0

//go:build race

package edge

// raced: the race detector makes pools forget at random, so that what is reused is
// made anew now and then.
const raced = true
