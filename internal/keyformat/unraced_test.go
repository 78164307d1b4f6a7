// SPDX-License-Identifier: MPL-2.0

//go:build !race

package keyformat_test

const raced = false
