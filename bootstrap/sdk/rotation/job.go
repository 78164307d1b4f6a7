// SPDX-License-Identifier: MPL-2.0

// Package rotation has the requests that put a credential under the server's rotation manager, an Enterprise feature.
package rotation

import "time"

// RotationJobConfigureRequest asks for the credential at ReqPath to be rotated. RotationSchedule and RotationPeriod exclude each other.
type RotationJobConfigureRequest struct {
	Name             string
	MountPoint       string
	ReqPath          string
	RotationSchedule string
	RotationWindow   time.Duration
	RotationPeriod   time.Duration
}

// RotationJobDeregisterRequest ends that.
type RotationJobDeregisterRequest struct {
	MountPoint string
	ReqPath    string
}
