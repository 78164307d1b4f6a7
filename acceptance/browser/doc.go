// SPDX-License-Identifier: MPL-2.0

// Package browser looks at the page of `apikeys fleet` as a browser shows it. It is a
// module of its own, so that what drives a browser stays out of the plugin's requirements.
package browser
