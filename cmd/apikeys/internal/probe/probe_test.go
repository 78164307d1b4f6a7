// SPDX-License-Identifier: MPL-2.0

package probe

import (
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func ask(t *testing.T, args ...string) error {
	t.Helper()
	set := flag.NewFlagSet("test", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	f := Register(set)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Ask(t.Context(), f)
}

func TestAsk(t *testing.T) {
	// What a proxy of the environment would answer is no answer.
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	hang := make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			w.WriteHeader(http.StatusNoContent)
		case "/moved":
			http.Redirect(w, r, "/good", http.StatusFound)
		case "/hangs":
			<-hang
		default:
			http.Error(w, "not ready: "+r.Host+strings.Repeat("x", 1000), http.StatusServiceUnavailable)
		}
	})
	plain, secure := httptest.NewServer(h), httptest.NewTLSServer(h)
	defer plain.Close()
	defer secure.Close()
	defer close(hang)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	socket := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = socket.Serve(l) }()
	defer socket.Close()
	for _, test := range []struct {
		args  string
		usage bool
		err   string
	}{
		{args: plain.URL + "/good"},
		{args: "-url " + plain.URL + "/good"},
		{args: "-ca-cert " + ca + " " + secure.URL + "/good"},
		{args: "-socket " + path + " http://proxy/good"},
		{args: "-socket " + path + " http://proxy/bad", err: "503 Service Unavailable: not ready: proxy"},
		{args: plain.URL + "/bad", err: "/bad: 503 Service Unavailable: not ready"},
		{args: plain.URL + "/moved", err: "302"},
		{args: "-timeout 50ms " + plain.URL + "/hangs", err: "deadline exceeded"},
		{args: secure.URL + "/good", err: "certificate"},
		{args: "http://127.0.0.1:1/", err: "refused"},
		{args: "-socket /no/where http://proxy/good", err: "no such file"},
		{args: "", usage: true, err: "-url: is missing"},
		{args: "http://a http://b", usage: true, err: "give one URL"},
		{args: "-url http://a http://b", usage: true, err: "give one URL"},
		{args: "127.0.0.1:9001", usage: true, err: "is not a URL"},
		{args: "ftp://a/", usage: true, err: "is not a URL"},
		{args: "-timeout 0 http://a/", usage: true, err: "-timeout: 0s: is no time"},
		{args: "-ca-cert /no/where http://a/", usage: true, err: "-ca-cert: open"},
		{args: "-ca-cert " + os.DevNull + " http://a/", usage: true, err: "holds no certificate"},
	} {
		err := ask(t, strings.Fields(test.args)...)
		if (err == nil) != (test.err == "") || err != nil && (!strings.Contains(err.Error(), test.err) || len(err.Error()) > 800) || errors.Is(err, ErrUsage) != test.usage {
			t.Errorf("%s: %v, want %s", test.args, err, test.err)
		}
	}
}
