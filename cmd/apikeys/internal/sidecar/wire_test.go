// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// send writes to a connection of its own, and reads the statuses of all answers until
// the proxy closes it.
func (r *running) send(text string) (statuses []int) {
	r.t.Helper()
	conn, err := net.Dial(r.main.Network(), r.main.String())
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	_, _ = io.WriteString(conn, text) // the proxy may have closed it
	for in := bufio.NewReader(conn); ; {
		resp, err := http.ReadResponse(in, nil)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.t.Errorf("the proxy holds a connection on which %.100q was sent", text)
		}
		if err != nil {
			return statuses
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		statuses = append(statuses, resp.StatusCode)
	}
}

// Nothing that a web page, or a confused program, could send uses the key; and what
// passes reaches the upstream as it was judged.
func TestWire(t *testing.T) {
	t.Parallel()
	api := newUpstream(t)
	r := start(t, api.URL, "-allow-host", "sidecar.local", "-allow-host", "Other.local:81")
	host := r.main.String()
	_, port, _ := net.SplitHostPort(host)
	// It is answered where the proxy goes on with the connection.
	last := "GET /last HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"
	const and = " | GET /last "
	with := func(line string, more ...string) string {
		return line + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(more, "")
	}
	at := func(host string) string { return "GET /a HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }
	const inner = "GET /inner HTTP/1.1\r\nHost: evil\r\n\r\n"
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(inner), inner)
	for name, test := range map[string]struct {
		text string
		want []int
		seen string // by the upstream; of what, and what is not passed on, 200 and 400 to 599 say
	}{
		"a request":           {with("GET /a", "\r\n"), []int{200, 200}, "GET /a " + and},
		"two":                 {with("GET /a", "\r\n") + with("GET /b", "\r\n"), []int{200, 200, 200}, "GET /a  | GET /b " + and},
		"OPTIONS":             {with("OPTIONS /a", "\r\n"), []int{200, 200}, "OPTIONS /a " + and},
		"OPTIONS *":           {with("OPTIONS *", "\r\n"), []int{400, 200}, and[3:]},
		"CONNECT":             {"CONNECT api:443 HTTP/1.1\r\nHost: " + host + "\r\n\r\n", []int{405, 200}, and[3:]},
		"CONNECT a path":      {with("CONNECT /a", "\r\n"), []int{405, 200}, and[3:]},
		"TRACE":               {with("TRACE /a", "\r\n"), []int{405, 200}, and[3:]},
		"an absolute target":  {with("GET http://"+host+"/a", "\r\n"), []int{400, 200}, and[3:]},
		"one of the upstream": {with("GET "+api.URL+"/a", "\r\n"), []int{400, 200}, and[3:]},
		"one of another":      {with("GET http://evil/a", "\r\n"), []int{400, 200}, and[3:]},
		"one without a host":  {with("GET http:/a", "\r\n"), []int{400, 200}, and[3:]},
		"a path of slashes":   {with("GET //evil/a", "\r\n"), []int{200, 200}, "GET //evil/a " + and},

		"no Host":           {"GET /a HTTP/1.1\r\n\r\n", []int{400}, ""},
		"no Host, 1.0":      {"GET /a HTTP/1.0\r\n\r\n", []int{403}, ""},
		"two Hosts":         {with("GET /a", "Host: evil\r\n\r\n"), []int{400}, ""},
		"twice the same":    {with("GET /a", "Host: "+host+"\r\n\r\n"), []int{400}, ""},
		"an empty Host":     {at(""), []int{403, 200}, and[3:]},
		"another Host":      {at("evil"), []int{403, 200}, and[3:]},
		"its port":          {at("evil:" + port), []int{403, 200}, and[3:]},
		"another port":      {at("127.0.0.1:1"), []int{403, 200}, and[3:]},
		"no port":           {at("127.0.0.1"), []int{403, 200}, and[3:]},
		"a longer name":     {at("localhost:" + port + ".evil"), []int{403, 200}, and[3:]},
		"a name below":      {at("localhost.evil:" + port), []int{403, 200}, and[3:]},
		"0.0.0.0":           {at("0.0.0.0:" + port), []int{403, 200}, and[3:]},
		"a decimal address": {at("2130706433:" + port), []int{403, 200}, and[3:]},
		"another spelling":  {at("127.1:" + port), []int{403, 200}, and[3:]},
		"the upstream":      {at(strings.TrimPrefix(api.URL, "http://")), []int{403, 200}, and[3:]},
		"localhost":         {at("localhost:" + port), []int{200, 200}, "GET /a " + and},
		"LOCALHOST":         {at("LOCALHOST:" + port), []int{200, 200}, "GET /a " + and},
		"an allowed one":    {at("sidecar.local:" + port), []int{200, 200}, "GET /a " + and},
		"without a port":    {at("sidecar.local"), []int{200, 200}, "GET /a " + and},
		"with its port":     {at("other.local:81"), []int{200, 200}, "GET /a " + and},
		"that with another": {at("other.local:82"), []int{403, 200}, and[3:]},

		"a page":                 {with("GET /a", "Origin: https://evil.example\r\n\r\n"), []int{403, 200}, and[3:]},
		"a page of nowhere":      {with("GET /a", "Origin: null\r\n\r\n"), []int{403, 200}, and[3:]},
		"an empty origin":        {with("GET /a", "Origin:\r\n\r\n"), []int{403, 200}, and[3:]},
		"a page on this machine": {with("GET /a", "Origin: http://localhost:3000\r\n\r\n"), []int{403, 200}, and[3:]},
		"with https":             {with("GET /a", "Origin: https://"+host+"\r\n\r\n"), []int{403, 200}, and[3:]},
		"one of two":             {with("GET /a", "Origin: http://"+host+"\r\nOrigin: https://evil\r\n\r\n"), []int{403, 200}, and[3:]},
		"its own origin":         {with("GET /a", "Origin: http://"+host+"\r\n\r\n"), []int{200, 200}, "GET /a " + and},
		"across sites":           {with("GET /a", "Sec-Fetch-Site: cross-site\r\n\r\n"), []int{403, 200}, and[3:]},
		"another port's page":    {with("GET /a", "Sec-Fetch-Site: same-site\r\n\r\n"), []int{403, 200}, and[3:]},
		"in capitals":            {with("GET /a", "sec-fetch-site: CROSS-SITE\r\n\r\n"), []int{403, 200}, and[3:]},
		"a second site":          {with("GET /a", "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n\r\n"), []int{403, 200}, and[3:]},
		"the address bar":        {with("GET /a", "Sec-Fetch-Site: none\r\n\r\n"), []int{200, 200}, "GET /a " + and},
		"Node's fetch":           {with("GET /a", "Sec-Fetch-Mode: cors\r\n\r\n"), []int{200, 200}, "GET /a " + and},
		"a preflight": {
			with("OPTIONS /a", "Origin: https://evil\r\nAccess-Control-Request-Method: DELETE\r\n\r\n"),
			[]int{403, 200},
			and[3:],
		},

		"dots":                {with("GET /a/../b", "\r\n"), []int{400, 200}, and[3:]},
		"dots at the end":     {with("GET /a/..", "\r\n"), []int{400, 200}, and[3:]},
		"encoded dots":        {with("GET /a/%2e%2E/b", "\r\n"), []int{400, 200}, and[3:]},
		"half of them":        {with("GET /a/.%2e/b", "\r\n"), []int{400, 200}, and[3:]},
		"encoded slashes":     {with("GET /a%2f..%2fb", "\r\n"), []int{400, 200}, and[3:]},
		"backslashes":         {with(`GET /a\..\b`, "\r\n"), []int{400, 200}, and[3:]},
		"encoded ones":        {with("GET /a%5c..%5Cb", "\r\n"), []int{400, 200}, and[3:]},
		"encoded twice":       {with("GET /a/%252e%252e/b", "\r\n"), []int{400, 200}, and[3:]},
		"and slashes":         {with("GET /a%252f%252e%252e%252fb", "\r\n"), []int{400, 200}, and[3:]},
		"many times":          {with("GET /a/%25252525252e./b", "\r\n"), []int{400, 200}, and[3:]},
		"with parameters":     {with("GET /a/..;x=1/b", "\r\n"), []int{400, 200}, and[3:]},
		"encoded parameters":  {with("GET /a/..%3bx/b", "\r\n"), []int{400, 200}, and[3:]},
		"half an encoding":    {with("GET /a%2", "\r\n"), []int{400}, ""},
		"three dots":          {with("GET /a/.../b..c/..d", "\r\n"), []int{200, 200}, "GET /a/.../b..c/..d " + and},
		"dots in the query":   {with("GET /a?b=../../c", "\r\n"), []int{200, 200}, "GET /a?b=../../c " + and},
		"an encoded slash":    {with("GET /a%2Fb%20c%25", "\r\n"), []int{200, 200}, "GET /a%2Fb%20c%25 " + and},
		"an odd query":        {with("GET /a?b;c=%zz&d=%2e%2e", "\r\n"), []int{200, 200}, "GET /a?b;c=%zz&d=%2e%2e " + and},
		"an empty query":      {with("GET /a?", "\r\n"), []int{200, 200}, "GET /a? " + and},
		"a control character": {with("GET /a\x01", "\r\n"), []int{400}, ""},

		"h2c":           {with("GET /a", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"), []int{400, 200}, and[3:]},
		"h2c alone":     {with("GET /a", "Connection: Upgrade\r\nUpgrade: H2C\r\n\r\n"), []int{400, 200}, and[3:]},
		"h2c hidden":    {with("GET /a", "Connection: close, upgrade\r\nUpgrade: websocket, h2c\r\n\r\n"), []int{400}, ""},
		"a second line": {with("GET /a", "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n"), []int{400, 200}, and[3:]},
		"its settings":  {with("GET /a", "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"), []int{400, 200}, and[3:]},
		"another HTTP":  {with("GET /a", "Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n\r\n"), []int{400, 200}, and[3:]},
		"TLS":           {with("GET /a", "Connection: upgrade\r\nUpgrade: TLS/1.2\r\n\r\n"), []int{400, 200}, and[3:]},

		"a body":                   {with("POST /a", fmt.Sprintf("Content-Length: %d\r\n\r\n", len(inner)), inner), []int{200, 200}, "POST /a " + inner + and},
		"a chunked one":            {with("POST /a", "Transfer-Encoding: chunked\r\n\r\n", chunked), []int{200, 200}, "POST /a " + inner + and},
		"a length beside chunks":   {with("POST /a", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", chunked), []int{200, 200}, "POST /a " + inner + and},
		"after chunks":             {with("POST /a", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", chunked), []int{200, 200}, "POST /a " + inner + and},
		"two lengths":              {with("POST /a", "Content-Length: 0\r\nContent-Length: 5\r\n\r\n"), []int{400}, ""},
		"a signed length":          {with("POST /a", "Content-Length: +5\r\n\r\nabcde"), []int{400}, ""},
		"an odd encoding":          {with("POST /a", "Transfer-Encoding: xchunked\r\n\r\n"), []int{501}, ""},
		"two encodings":            {with("POST /a", "Transfer-Encoding: gzip, chunked\r\n\r\n"), []int{501}, ""},
		"twice chunked":            {with("POST /a", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), []int{501}, ""},
		"a space before the colon": {with("POST /a", "Transfer-Encoding : chunked\r\n\r\n"), []int{400}, ""},
		"a header that is huge":    {with("GET /a", "X-A: "+strings.Repeat("a", 80<<10)+"\r\n\r\n"), []int{431}, ""},
		"one that is large":        {with("GET /a", "X-A: "+strings.Repeat("a", 30<<10)+"\r\n\r\n"), []int{200, 200}, "GET /a " + and},
		"a line feed alone":        {"GET /a HTTP/1.1\nHost: " + host + "\n\n", []int{200, 200}, "GET /a " + and},
	} {
		if statuses := r.send(test.text + last); fmt.Sprint(statuses) != fmt.Sprint(test.want) {
			t.Errorf("%s: %v, want %v", name, statuses, test.want)
		}
		api.mu.Lock()
		if seen := strings.Join(api.raw, " | "); seen != test.seen {
			t.Errorf("%s: the upstream saw %q, want %q", name, seen, test.seen)
		}
		api.mu.Unlock()
		for _, req := range api.seen() {
			if got := req.Header["X-Api-Key"]; len(got) != 1 || got[0] != keyOf(1) {
				t.Errorf("%s: the upstream is shown %q", name, got)
			}
			if "http://"+req.Host != api.URL {
				t.Errorf("%s: the upstream is called %s", name, req.Host)
			}
		}
	}
}

// What is sent in the key's header, however it is spelled, never goes on, nor can ours be
// taken away.
func TestKeyHeader(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"X-API-Key", "Authorization"} {
		api := newUpstream(t)
		r := start(t, api.URL, "-header", header)
		for _, more := range []string{
			"X-API-Key: other\r\nAuthorization: other\r\n",
			"x-api-key: other\r\nauthorization: other\r\n",
			"X_API_Key: other\r\nAuthorization: other\r\n",
			"x_api-key: other\r\nX.API.Key: another\r\nAuthorization: other\r\n",
			"Connection: X-API-Key, Authorization\r\nX-API-Key: other\r\n",
			"Connection: keep-alive, x-api-key\r\nConnection: authorization\r\n",
			"Connection: X_API_Key\r\nX_API_Key: other\r\n",
			"Transfer-Encoding: chunked\r\nTrailer: X-API-Key, X_API_Key, Authorization, X-Sum\r\n",
		} {
			body := ""
			if strings.Contains(more, "chunked") {
				body = "1\r\na\r\n0\r\nX-API-Key: other\r\nX_API_Key: other\r\nAuthorization: other\r\nX-Sum: 7\r\nX-None: 1\r\n\r\n"
			}
			r.send("POST /a HTTP/1.1\r\nHost: " + r.main.String() + "\r\n" + more + "\r\n" + body +
				"GET /last HTTP/1.1\r\nHost: " + r.main.String() + "\r\nConnection: close\r\n\r\n")
			for _, req := range api.seen() {
				want := map[string]string{"X-API-Key": keyOf(1), "Authorization": "Bearer " + keyOf(1)}[header]
				if got := req.Header.Get(header); got != want {
					t.Errorf("%s: %q: the upstream is shown %q", header, more, got)
				}
				for _, h := range []http.Header{req.Header, req.Trailer} {
					for name, values := range h {
						if fold := plainName.Replace(strings.ToLower(name)); fold == strings.ToLower(header) && (name != http.CanonicalHeaderKey(header) || len(values) != 1 || values[0] != want) {
							t.Errorf("%s: %q: %s: %q goes on", header, more, name, values)
						}
					}
				}
				if body != "" && req.RequestURI == "/a" && (req.Trailer.Get("X-Sum") != "7" || len(req.Trailer["X-None"]) > 0) {
					t.Errorf("%s: trailer %v", header, req.Trailer)
				}
			}
		}
	}
}

// The program is what the upstream hears of: nothing is added, nothing taken away but
// what concerns the connection.
func TestHeadersPass(t *testing.T) {
	t.Parallel()
	api := newUpstream(t)
	r := start(t, api.URL+"/base/")
	host := r.main.String()
	r.send("GET /a HTTP/1.1\r\nHost: " + host + "\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n" +
		"Forwarded: for=192.0.2.7\r\nOrigin: http://" + host + "\r\nCookie: a=b\r\nKeep-Alive: 5\r\nProxy-Authorization: Basic eA==\r\nTE: trailers, gzip\r\nAccept-Encoding: br\r\n\r\n")
	r.send("GET /b HTTP/1.1\r\nHost: " + host + "\r\nConnection: close, X-Forwarded-For\r\nX-Forwarded-For: 192.0.2.7\r\nUser-Agent: x\r\n\r\n")
	all := api.seen()
	if len(all) != 2 {
		t.Fatal(all)
	}
	want := http.Header{
		"X-Api-Key": {keyOf(1)}, "X-Forwarded-For": {"192.0.2.7"}, "X-Forwarded-Proto": {"https"}, "Forwarded": {"for=192.0.2.7"}, "Origin": {api.URL},
		"Cookie": {"a=b"}, "Te": {"trailers"}, "Accept-Encoding": {"br"},
	}
	if got := all[0].Header; fmt.Sprint(got) != fmt.Sprint(want) || all[0].RequestURI != "/base/a" {
		t.Errorf("%s %v", all[0].RequestURI, got)
	}
	if got := all[1].Header; fmt.Sprint(got) != fmt.Sprint(http.Header{"X-Api-Key": {keyOf(1)}, "User-Agent": {"x"}}) {
		t.Errorf("%v", got)
	}
}

// Who does not finish a header does not hold a connection.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	r := start(t, newUpstream(t).URL)
	done := make(chan []int)
	texts := []string{"", "P", "PRI * HTTP/2.0\r\n\r\n", "GET /a HTTP/1.1\r\nHost: " + r.main.String() + "\r\n"}
	for _, text := range texts {
		go func() { done <- r.send(text) }()
	}
	for range texts {
		if statuses := <-done; len(statuses) > 0 && statuses[0] != 400 {
			t.Errorf("%v", statuses)
		}
	}
}

// With HTTP/2 the same is refused, also what only its frames can say.
func TestWireOfHTTP2(t *testing.T) {
	t.Parallel()
	api := newUpstream(t)
	r := start(t, api.URL)
	host := r.main.String()
	for name, test := range map[string]struct {
		fields []string
		want   string
	}{
		"a request":              {[]string{":method", "GET", ":scheme", "http", ":authority", host, ":path", "/a"}, "200"},
		"another authority":      {[]string{":method", "GET", ":scheme", "http", ":authority", "evil", ":path", "/a"}, "403"},
		"no authority":           {[]string{":method", "GET", ":scheme", "http", ":path", "/a"}, "403"},
		"Host alone":             {[]string{":method", "GET", ":scheme", "http", ":path", "/a", "host", "evil"}, "403"},
		"another Host beside it": {[]string{":method", "GET", ":scheme", "http", ":authority", host, ":path", "/a", "host", "evil"}, "403"},
		"an absolute path":       {[]string{":method", "GET", ":scheme", "http", ":authority", host, ":path", "http://evil/a"}, "400"},
		"a star":                 {[]string{":method", "OPTIONS", ":scheme", "http", ":authority", host, ":path", "*"}, "400"},
		"CONNECT":                {[]string{":method", "CONNECT", ":authority", host}, "405"},
		"dots":                   {[]string{":method", "GET", ":scheme", "http", ":authority", host, ":path", "/a/%2e%2e/b"}, "400"},
		"a page":                 {[]string{":method", "GET", ":scheme", "http", ":authority", host, ":path", "/a", "origin", "http://evil"}, "403"},
		"an alias of the key":    {[]string{":method", "GET", ":scheme", "http", ":authority", host, ":path", "/a", "x_api_key", "other"}, "200"},
	} {
		if got := r.frame(test.fields); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		for _, req := range api.seen() {
			if test.want != "200" || req.RequestURI != "/a" || "http://"+req.Host != api.URL || len(req.Header["X_api_key"]) > 0 || req.Header.Get("X-API-Key") != keyOf(1) {
				t.Errorf("%s: the upstream saw %s at %s with %v", name, req.RequestURI, req.Host, req.Header)
			}
		}
	}
}

// frame sends one request with HTTP/2, and returns the status.
func (r *running) frame(fields []string) (status string) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.main.String())
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		if err := enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			r.t.Fatal(err)
		}
	}
	_, _ = io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return f.ErrCode.String()
		case *http2.GoAwayFrame:
			return f.ErrCode.String()
		}
	}
}
