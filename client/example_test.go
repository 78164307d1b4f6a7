// SPDX-License-Identifier: MPL-2.0

package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/client"
)

// server answers as the engine does.
func server() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/apikeys/creds/orders" {
			fmt.Fprint(w, `{"data": {"api_key": "the-key", "key_id": "k7", "version": 7, "role": "orders", "scopes": ["orders:read"],
				"ttl": 300, "rotation_period": 7776000, "last_vault_rotation": "2026-01-02T03:04:05Z"}}`)
		}
	}))
}

func Example() {
	vault := server()
	defer vault.Close()
	orders := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "called with", r.Header.Get("Authorization"))
	}))
	defer orders.Close()

	config := api.DefaultConfig() // VAULT_ADDR and so on
	config.Address = vault.URL
	c, err := api.NewClient(config)
	if err != nil {
		panic(err)
	}

	source, err := client.New(client.Options{Client: c, Mount: "apikeys", Role: "orders"})
	if err != nil {
		panic(err)
	}
	defer source.Close()
	target, _ := url.Parse(orders.URL)
	transport, err := client.NewTransport(source, client.TransportOptions{Hosts: []string{target.Host}})
	if err != nil {
		panic(err)
	}
	caller := &http.Client{Transport: transport}

	answer, err := caller.Get(orders.URL)
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	fmt.Print(string(body))
	// Output: called with Bearer the-key
}

// A program that does not speak HTTP asks for the key when it needs one.
func ExampleSource_Key() {
	vault := server()
	defer vault.Close()
	config := api.DefaultConfig()
	config.Address = vault.URL
	c, err := api.NewClient(config)
	if err != nil {
		panic(err)
	}
	source, err := client.New(client.Options{Client: c, Mount: "apikeys", Role: "orders"})
	if err != nil {
		panic(err)
	}
	defer source.Close()

	key, err := source.Key(context.Background())
	if err != nil {
		panic(err)
	}
	fmt.Println(key, "is version", key.Version) // its value is key.Value
	// Output: [key k7] is version 7
}
