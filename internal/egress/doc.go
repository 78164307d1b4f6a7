// SPDX-License-Identifier: MPL-2.0

// Package egress is the one way out: which requests of the engine may leave, and how
// they go. Nothing leaves unless an operator's list names it:
//
//	hooks.example.com     this host, port 443, at public addresses
//	*.example.com:8443    hosts below this domain, port 8443, at public addresses
//	10.20.0.0/16          this network, port 443, whatever the host is called
//	127.0.0.1:*           this address, all ports
//	!10.20.0.5            not this address, on any port, whatever else says so
//
// Private and loopback addresses need a network of the list, and link-local addresses
// and the metadata services of clouds are never reached. What is judged is the address
// that is then dialed, so that a name which changes its address gains nothing. Of an IPv6
// address that carries an IPv4 one both are judged; but a gateway whose prefix is an
// organisation's own cannot be told from other addresses, and that prefix should be
// excluded.
//
//	policy, err := egress.Parse(egress.Config{Allow: list})
//	m := egress.NewManager(egress.Options{})
//	m.Use(policy)
//	answer, err := m.Do(request, ca, egress.MaxAnswer)
//
// An error says what class of trouble it was and no more: no address, no text of the
// other side, and whether a connection was refused or timed out is not told apart, so
// that who writes URLs learns nothing of a network that cannot be seen otherwise.
package egress
