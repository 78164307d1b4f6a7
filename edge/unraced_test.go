// SPDX-License-Identifier: MPL-2.0

//go:build !race

package edge

const raced = false
