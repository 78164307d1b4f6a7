// SPDX-License-Identifier: MPL-2.0

package egress

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

var quiet = log.New(io.Discard, "", 0)

func TestManager(t *testing.T) {
	n := newInternet()
	n.rename("hooks.example.com", "127.0.0.1")
	closed := make(chan struct{}, 16)
	entered, leave := make(chan struct{}), make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- struct{}{}
			<-leave
		}
		hello(w, r)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	n.put("127.0.0.1:8080", s.Listener.Addr().String())

	m := NewManager(n.options())
	send := func(path string) error {
		_, err := m.Do(request(t.Context(), t, "http://127.0.0.1:8080"+path), "", MaxAnswer)
		return err
	}
	mustDial := func(want string) {
		t.Helper()
		if dialed, _ := n.log(); dialed != want {
			t.Errorf("it dialed %q, want %q", dialed, want)
		}
	}
	if err := send("/"); ClassOf(err) != Forbidden {
		t.Errorf("before there is a policy: %v", err)
	}
	mustDial("")

	m.Use(policy(t, "127.0.0.1:8080"))
	for range 3 {
		if err := send("/"); err != nil {
			t.Fatal(err)
		}
	}
	mustDial("127.0.0.1:8080")
	// The same policy again changes nothing.
	m.Use(policy(t, "127.0.0.1/32:8080"))
	if err := send("/"); err != nil {
		t.Fatal(err)
	}
	mustDial("")
	if got := m.Policy().Entries(); len(got) != 1 {
		t.Errorf("in force is %v", got)
	}

	// Another one closes what lies idle, and what a request was still using once it is
	// through.
	done := make(chan error)
	go func() { done <- send("/slow") }()
	<-entered
	m.Use(policy(t, "127.0.0.1:8080", "!127.0.0.2"))
	close(leave)
	if err := <-done; err != nil {
		t.Errorf("a request on its way: %v", err)
	}
	<-closed
	mustDial("")
	if err := send("/"); err != nil {
		t.Fatal(err)
	}
	mustDial("127.0.0.1:8080")

	m.Use(&Policy{})
	<-closed
	if err := send("/"); ClassOf(err) != Forbidden {
		t.Errorf("after the policy was taken back: %v", err)
	}
	mustDial("")

	// Each CA has connections of its own.
	m.Use(policy(t, "127.0.0.1:8080"))
	for _, pem := range []string{"", ca.pem(), otherCA.pem(), ca.pem()} {
		if _, err := m.Do(request(t.Context(), t, "http://127.0.0.1:8080"), pem, MaxAnswer); err != nil {
			t.Fatal(err)
		}
	}
	mustDial("127.0.0.1:8080 127.0.0.1:8080 127.0.0.1:8080")
	req, body := watched(t, "http://127.0.0.1:8080")
	if _, err := m.Do(req, "no CA", MaxAnswer); refusal.In(err) == nil || !body.closed {
		t.Errorf("with a broken CA: %v, its body closed: %v", err, body.closed)
	}
	m.CloseIdle()
	for range 3 {
		<-closed
	}

	// As many CAs as there may be do not grow without end.
	for range 3 * maxClients {
		if _, err := m.take(newAuthority().pem()); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.clients) > maxClients {
		t.Errorf("%d clients are kept", len(m.clients))
	}
}

// A request may have its client before a policy changes, and dial after that: what it
// leaves is closed all the same.
func TestManagerRetires(t *testing.T) {
	n := newInternet()
	closed := make(chan struct{}, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(hello))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	n.put("127.0.0.1:8080", s.Listener.Addr().String())
	m := NewManager(n.options())
	m.Use(policy(t, "127.0.0.1:8080"))
	c, err := m.take("")
	if err != nil {
		t.Fatal(err)
	}
	m.Use(policy(t, "a.example"))
	if _, err := c.Do(request(t.Context(), t, "http://127.0.0.1:8080"), MaxAnswer); err != nil {
		t.Fatal(err)
	}
	m.release(c)
	<-closed
	if again, err := m.take(""); err != nil || again == c || again.retired || !c.retired {
		t.Errorf("a retired client is handed out: %v", err)
	}
}

func TestTimesAreThoseOfTheContract(t *testing.T) {
	if Timeout != 10*time.Second || MaxAnswer != 65536 || MaxPage != 1048576 {
		t.Error("10 s, 64 KiB, pages of 1 MiB")
	}
}
