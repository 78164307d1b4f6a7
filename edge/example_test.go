// SPDX-License-Identifier: MPL-2.0

package edge_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

// server answers as the engine does: it knows one key.
func server() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().UTC().Format(time.RFC3339Nano)
		switch r.URL.Path {
		case "/v1/apikeys/changes":
			fmt.Fprintf(w, `{"data": {"cursor": "e.1", "reset": true, "now": %q, "max_staleness": 60}}`, now)
		case "/v1/apikeys/verify":
			fmt.Fprintf(w, `{"data": {"cursor": "e.1", "roles": {"r": {"role": "orders", "scopes": ["orders:read"]}},
				"results": [{"code": "VALID", "role_id": "r", "key_id": "k1", "version": 3, "timeline": [{"from": %q, "code": "VALID", "state": "current"}]}]}}`, now)
		}
	}))
}

func Example_middleware() {
	vault := server()
	defer vault.Close()
	config := api.DefaultConfig()
	config.Address = vault.URL
	client, err := api.NewClient(config)
	if err != nil {
		panic(err)
	}

	v, err := edge.New(edge.Options{Client: client, Mount: "apikeys"})
	if err != nil {
		panic(err)
	}
	defer v.Close()
	orders := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "orders for %s, version %d", edge.FromContext(r.Context()).Role, edge.FromContext(r.Context()).Version)
	})
	handler := v.Handler(edge.Guard{Scopes: []string{"orders:read"}}, orders)

	request := httptest.NewRequest(http.MethodGet, "/orders", http.NoBody)
	request.Header.Set("Authorization", "Bearer the-key")
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request)
	fmt.Println(answer.Code, answer.Body)
	answer = httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/orders", http.NoBody))
	fmt.Println(answer.Code)
	// Output:
	// 200 orders for orders, version 3
	// 401
}
