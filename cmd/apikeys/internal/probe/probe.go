// SPDX-License-Identifier: MPL-2.0

// Package probe is the command health: it asks an address once, for probes where there is
// no shell and no curl.
package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version"
)

// Flags say what is asked.
type Flags struct {
	set     *flag.FlagSet
	url     string
	timeout time.Duration
	caCert  string
	socket  string
}

const usage = `Usage: apikeys health http://127.0.0.1:9001/readyz

Ends with 0 if the answer is 200 to 299, with 1 if it is another one or none, and with 2
if it cannot ask.

`

// Register adds the flags to the command.
func Register(set *flag.FlagSet) *Flags {
	f := &Flags{set: set}
	set.StringVar(&f.url, "url", "", "`URL` to ask, in place of the argument")
	set.DurationVar(&f.timeout, "timeout", 3*time.Second, "`duration` that the answer may take")
	set.StringVar(&f.caCert, "ca-cert", "", "`file` of the certificates that an https server's is checked against (default: the machine's)")
	set.StringVar(&f.socket, "socket", "", "`path` of a Unix socket to ask at; the URL's host is the Host header then")
	set.Usage = func() {
		fmt.Fprint(set.Output(), usage)
		set.PrintDefaults()
	}
	return f
}

// ErrUsage is why nothing was asked.
var ErrUsage = errors.New("health")

// Ask asks once. The error is nil if the answer is good, and wraps ErrUsage if nothing
// was asked.
func Ask(ctx context.Context, f *Flags) error {
	client, target, err := f.prepare()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	req.Header.Set("User-Agent", "apikeys-health/"+version.Version)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // it helps, if there is any
	return fmt.Errorf("%s: %s: %s", target, resp.Status, strings.TrimSpace(string(text)))
}

func (f *Flags) prepare() (*http.Client, string, error) {
	target := f.url
	switch {
	case f.set.NArg() > 1 || f.set.NArg() == 1 && target != "":
		return nil, "", errors.New("give one URL")
	case f.set.NArg() == 1:
		target = f.set.Arg(0)
	}
	if target == "" {
		return nil, "", errors.New("-url: is missing: give one, such as http://127.0.0.1:9001/readyz")
	}
	u, err := url.Parse(target)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, "", fmt.Errorf("-url: %q: is not a URL such as http://127.0.0.1:9001/readyz", target)
	}
	if f.timeout <= 0 {
		return nil, "", fmt.Errorf("-timeout: %v: is no time: give one such as 3s", f.timeout)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.caCert != "" {
		raw, err := os.ReadFile(f.caCert)
		if err != nil {
			return nil, "", fmt.Errorf("-ca-cert: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(raw) {
			return nil, "", fmt.Errorf("-ca-cert: %s: holds no certificate", f.caCert)
		}
	}
	// No proxy of the environment: a probe is of what runs here.
	transport := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	if f.socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", f.socket)
		}
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, target, nil
}
