// SPDX-License-Identifier: MPL-2.0

package logical

import "errors"

// Secret makes a response a leased secret.
type Secret struct {
	LeaseOptions

	// InternalData is stored with the lease and comes back on renewal and revocation. It must be JSON-encodable.
	InternalData map[string]interface{} `json:"internal_data"`

	// LeaseID is the server's to assign.
	LeaseID string
}

// Validate refuses a negative TTL.
func (s *Secret) Validate() error {
	if s.TTL < 0 {
		return errors.New("ttl duration must not be less than zero")
	}
	return nil
}
