// SPDX-License-Identifier: MPL-2.0

//go:build !race

package backend

const raced = false
