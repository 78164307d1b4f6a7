// SPDX-License-Identifier: MPL-2.0

package egress

import (
	"net/http"
	"sync"
)

// maxClients is how many clients a manager keeps: as many CAs in use at a time.
const maxClients = 64

// Manager holds the clients of the policy in force, one for each CA, so that requests
// share connections. Until Use it lets nothing leave. It is safe for concurrent use.
type Manager struct {
	with Options

	mu      sync.Mutex
	policy  *Policy
	clients map[string]*held
}

// held is a client, with what the manager's lock keeps of it.
type held struct {
	*Client
	retired bool
}

// NewManager makes a manager.
func NewManager(with Options) *Manager {
	return &Manager{with: with, policy: &Policy{}, clients: map[string]*held{}}
}

// Use puts a policy in force. If it says something else than the one before, no later
// request uses a connection that was made under that one. Requests on their way go on.
func (m *Manager) Use(p *Policy) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.policy.Equal(p) {
		m.retire()
		m.policy = p
	}
}

// Policy is the one in force.
func (m *Manager) Policy() *Policy {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.policy
}

// CloseIdle closes the connections that no request uses.
func (m *Manager) CloseIdle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retire()
}

// Do sends a request under the policy in force; see Client.Do.
func (m *Manager) Do(req *http.Request, ca string, limit int64) (*Answer, error) {
	c, err := m.take(ca)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	defer m.release(c)
	return c.Do(req, limit)
}

func (m *Manager) take(ca string) (*held, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.clients[ca]
	if c == nil {
		client, err := NewClient(m.policy, ca, m.with)
		if err != nil {
			return nil, err
		}
		if len(m.clients) >= maxClients {
			m.retire()
		}
		c = &held{Client: client}
		m.clients[ca] = c
	}
	return c, nil
}

// release closes what a request leaves open that began before its client was retired, and
// dialed after that.
func (m *Manager) release(c *held) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.retired {
		c.CloseIdle()
	}
}

func (m *Manager) retire() {
	for _, c := range m.clients {
		c.retired = true
		c.CloseIdle()
	}
	clear(m.clients)
}
