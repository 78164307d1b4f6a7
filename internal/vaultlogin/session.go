// SPDX-License-Identifier: MPL-2.0

// Package vaultlogin keeps a token of a Vault or OpenBao server usable: it logs in,
// renews, logs in again when the token ends or is refused, and reads a token file again
// when an agent has written it.
package vaultlogin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// Options say where a token comes from: Auth logs in, TokenFile holds one, else the
// client's own is used. The client is cloned.
type Options struct {
	Client    *api.Client
	Auth      api.AuthMethod
	TokenFile string
	Log       *slog.Logger
}

// Session is a client with a token that is kept usable.
type Session struct {
	opt  Options
	life context.Context //nolint:containedctx // logins are shared, and end with the session

	mu     sync.Mutex
	client *api.Client
	login  chan struct{} // closed when the login in progress has ended
	err    error         // of the last login
	// Of the token file, as it was read last.
	modified time.Time
	size     int64
	ends     time.Time // of a token that was issued by Auth; zero if it does not end
	// Refusals that a new token has not mended: until then none is logged in for.
	vain      time.Time
	vainPause time.Duration
	renew     time.Time
}

const (
	// maxAnswer is how much of an answer is read.
	maxAnswer = 64 << 20
	// loginTime is what a login may take.
	loginTime = 10 * time.Second
	// retry is how soon a login that failed is tried again in the background.
	retry = 5 * time.Second
	// firstVain and longestVain bound the pauses between logins for calls that are
	// refused with every token: a policy lacks something, and each login leaves a token
	// at the server.
	firstVain, longestVain = time.Second, time.Minute
)

// Start makes a session. Logging in goes on in the background until ctx ends; the first
// calls wait for it.
func Start(ctx context.Context, done *sync.WaitGroup, opt Options) (*Session, error) {
	client, err := opt.Client.CloneWithHeaders()
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	client.SetToken(opt.Client.Token())
	// Whoever asks has its own patience, and asks again when it makes sense.
	client.SetMaxRetries(0)
	s := &Session{opt: opt, life: ctx, client: client}
	if opt.TokenFile != "" {
		if err := s.readFile(); err != nil {
			return nil, err
		}
	}
	if opt.Auth != nil {
		done.Go(func() { s.keep(ctx) })
	}
	return s, nil
}

// Do makes a call, and returns what it answered. A call that is refused for its token
// is made once more with a new one.
func (s *Session) Do(ctx context.Context, call func(*api.Client) (*api.Response, error)) ([]byte, error) {
	body, _, err := s.Call(ctx, call)
	return body, err
}

// Call is Do, and returns the client that was answered too: its token is that of the
// call.
func (s *Session) Call(ctx context.Context, call func(*api.Client) (*api.Response, error)) ([]byte, *api.Client, error) {
	client, err := s.ready(ctx)
	if err != nil {
		return nil, nil, err
	}
	body, err := read(call(client))
	if !refused(err) || s.inVain() {
		return body, client, err
	}
	again, lerr := s.anew(ctx, client.Token())
	if lerr != nil || again == nil {
		return nil, client, errors.Join(err, lerr)
	}
	body, err = read(call(again))
	s.tried(refused(err))
	return body, again, err
}

// Token is the one that the next call is made with; empty before the first login.
func (s *Session) Token() string {
	if s.opt.TokenFile != "" {
		s.look()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client.Token()
}

// inVain reports whether a new token has just been no remedy for a refusal.
func (s *Session) inVain() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.vain)
}

// tried notes whether a call was refused with a new token, too.
func (s *Session) tried(refused bool) {
	if s.opt.Auth == nil {
		return // a look at a file costs nothing
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !refused {
		s.vain, s.vainPause = time.Time{}, 0
		return
	}
	s.vainPause = min(max(firstVain, 2*s.vainPause), longestVain)
	s.vain = time.Now().Add(s.vainPause)
}

func read(resp *api.Response, err error) ([]byte, error) {
	if resp != nil && resp.Body != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
}

// refused reports whether the token may be what a call failed for.
func refused(err error) bool {
	var re *api.ResponseError
	return errors.As(err, &re) && (re.StatusCode == http.StatusForbidden || re.StatusCode == http.StatusUnauthorized)
}

// ready is the client, with a token if it can have one by now.
func (s *Session) ready(ctx context.Context) (*api.Client, error) {
	if s.opt.TokenFile != "" {
		s.look()
	}
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if s.opt.Auth == nil || client.Token() != "" {
		return client, nil
	}
	return s.anew(ctx, "")
}

// look reads the token file again where it has changed.
func (s *Session) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(s.opt.TokenFile)
	if err != nil || info.ModTime().Equal(s.modified) && info.Size() == s.size {
		return
	}
	// One that is half written is read again with the next call.
	if err := s.readFileLocked(); err != nil {
		s.opt.Log.Warn("the token file cannot be read", "error", err)
	}
}

func (s *Session) readFile() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readFileLocked()
}

func (s *Session) readFileLocked() error {
	info, err := os.Stat(s.opt.TokenFile)
	if err != nil {
		return fmt.Errorf("token file: %w", err)
	}
	raw, err := os.ReadFile(s.opt.TokenFile)
	if err != nil {
		return fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	if token == "" {
		return fmt.Errorf("token file %s is empty", s.opt.TokenFile)
	}
	s.replace(token)
	s.modified, s.size = info.ModTime(), info.Size()
	return nil
}

// replace gives a clone of the client the token: calls in flight keep theirs.
func (s *Session) replace(token string) {
	client, err := s.client.CloneWithHeaders()
	if err != nil {
		client = s.client // it was cloned before, so this cannot be
	}
	client.SetToken(token)
	client.SetMaxRetries(0)
	s.client = client
}

// anew is a client with another token than old; nil if there is none to be had. Callers
// at the same time share one login.
func (s *Session) anew(ctx context.Context, old string) (*api.Client, error) {
	if s.opt.TokenFile != "" {
		err := s.readFile()
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil || s.client.Token() == old {
			return nil, err
		}
		return s.client, nil
	}
	if s.opt.Auth == nil {
		return nil, nil
	}
	s.mu.Lock()
	if s.client.Token() != old && s.client.Token() != "" {
		defer s.mu.Unlock()
		return s.client, nil
	}
	done := s.login
	if done == nil {
		done = make(chan struct{})
		s.login = done
		go s.logIn(done) //nolint:gosec // callers share it
	}
	s.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client, s.err
}

// logIn gets a new token.
func (s *Session) logIn(done chan struct{}) {
	ctx, cancel := context.WithTimeout(s.life, loginTime)
	defer cancel()
	s.mu.Lock()
	client, err := s.client.CloneWithHeaders()
	s.mu.Unlock()
	var secret *api.Secret
	if err == nil {
		client.ClearToken()
		secret, err = s.opt.Auth.Login(ctx, client)
	}
	if err == nil && (secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "") {
		err = errors.New("the login answered no token")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.login, s.err = nil, nil
	if err != nil {
		s.err = fmt.Errorf("login: %w", err)
	} else {
		s.replace(secret.Auth.ClientToken)
		s.plan(secret)
	}
	close(done)
}

// plan notes when the token is to be renewed, and when it ends.
func (s *Session) plan(secret *api.Secret) {
	s.ends, s.renew = time.Time{}, time.Time{}
	if ttl := time.Duration(secret.Auth.LeaseDuration) * time.Second; ttl > 0 {
		s.ends = time.Now().Add(ttl)
		s.renew = time.Now().Add(ttl * 2 / 3)
	}
}

// keep logs in at once and renews the token, or logs in again, ahead of its end.
func (s *Session) keep(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		token, due := s.client.Token(), s.renew
		s.mu.Unlock()
		var err error
		switch {
		case token == "":
			_, err = s.anew(ctx, "")
		case !due.IsZero() && !time.Now().Before(due):
			err = s.extend(ctx, token)
		}
		pause := time.Minute
		s.mu.Lock()
		if !s.renew.IsZero() {
			pause = min(pause, max(time.Until(s.renew), time.Second))
		}
		s.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			s.opt.Log.Warn("no token", "error", err)
			pause = retry
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// extend renews the token, or gets another one where it cannot be renewed for long.
func (s *Session) extend(ctx context.Context, token string) error {
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	secret, err := client.Auth().Token().RenewSelfWithContext(ctx, 0)
	s.mu.Lock()
	left := time.Until(s.ends)
	if err == nil && secret != nil && secret.Auth != nil && time.Duration(secret.Auth.LeaseDuration)*time.Second > left {
		s.plan(secret)
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	_, err = s.anew(ctx, token)
	return err
}

// Reconnect has the next call use a new connection: the one there is may lead nowhere.
func (s *Session) Reconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	config := s.client.CloneConfig()
	if config.HttpClient == nil {
		return
	}
	transport, ok := config.HttpClient.Transport.(*http.Transport)
	if !ok {
		return
	}
	own := transport.Clone()
	if _, shared := own.TLSNextProto["h2"]; shared {
		// The clone's HTTP/2 is that of the one it was made from, with its connections,
		// and goes on using one as long as a call hangs there: it gets its own.
		own.TLSNextProto, own.ForceAttemptHTTP2 = nil, true
	}
	client := *config.HttpClient
	client.Transport = own
	config.HttpClient = &client
	fresh, err := api.NewClient(config)
	if err != nil {
		return // the configuration was used before
	}
	fresh.SetHeaders(s.client.Headers())
	fresh.SetToken(s.client.Token())
	fresh.SetMaxRetries(0)
	s.client = fresh
	transport.CloseIdleConnections()
}
