// SPDX-License-Identifier: MPL-2.0

//go:build race

package backend

// raced: the race detector makes everything several times as slow.
const raced = true
