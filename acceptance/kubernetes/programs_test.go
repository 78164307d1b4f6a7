// SPDX-License-Identifier: MPL-2.0

package kubernetes_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// apikeys builds the program that the sidecars run.
func apikeys(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(t.TempDir(), "apikeys"))
	if err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", path, "./cmd/apikeys")
	// The program is of another module, which the workspace has.
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "GOWORK=", "GOFLAGS=", "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, text)
	}
	return path
}

// vaultFiles is a directory in place of /var/run/vault, with what a Pod has there.
func vaultFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	for name, content := range map[string][]byte{
		"ca/ca.crt":   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
		"token/token": []byte("a token of the cluster\n"),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestEdgeReadsItsConfiguration has the program check the configuration that the Pod
// mounts: the ConfigMap is where its argument says, and so are the files that it names.
func TestEdgeReadsItsConfiguration(t *testing.T) {
	t.Parallel()
	pod := pods(t)["edge"]
	c := pod.Spec.InitContainers[0]
	mounts := map[string]string{}
	for _, m := range c.VolumeMounts {
		mounts[m.MountPath] = m.Name
	}
	for _, path := range []string{"/etc/apikeys", "/var/run/apikeys", "/var/lib/apikeys", "/var/run/vault/ca", "/var/run/vault/token"} {
		if mounts[path] == "" {
			t.Errorf("nothing is mounted at %s", path)
		}
	}
	config := find[corev1.ConfigMap](t, "edge", "ConfigMap")
	text, ok := config.Data["edge.hcl"]
	if !ok || len(c.Args) != 2 || c.Args[0] != "edge" || c.Args[1] != "-config=/etc/apikeys/edge.hcl" {
		t.Fatalf("%v is not of the ConfigMap", c.Args)
	}
	for _, v := range pod.Spec.Volumes {
		if v.Name == "config" && (v.ConfigMap == nil || v.ConfigMap.Name != config.Name) {
			t.Errorf("volume config is not %s", config.Name)
		}
	}
	files := vaultFiles(t)
	dir := t.TempDir()
	// What the Pod mounts is elsewhere here.
	text = strings.NewReplacer("/var/run/vault/", files+"/", "/var/lib/apikeys/", dir+"/", "unix:/var/run/apikeys/", "unix:"+dir+"/").Replace(text)
	path := filepath.Join(dir, "edge.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program := apikeys(t)
	if out, err := exec.Command(program, "edge", "-check", "-config", path).CombinedOutput(); err != nil {
		t.Errorf("the configuration: %v\n%s", err, out)
	}
	if err := os.WriteFile(path, []byte(text+"\nsomething_else = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, "edge", "-check", "-config", path).CombinedOutput(); err == nil {
		t.Errorf("a field that does not exist passed:\n%s", out)
	}
}

// TestProxyStartsWithItsArguments has the program take the arguments of the manifest, with a Vault that is away: it is
// alive, and not ready.
func TestProxyStartsWithItsArguments(t *testing.T) {
	t.Parallel()
	files := vaultFiles(t)
	admin := "unix:" + filepath.Join(t.TempDir(), "admin")
	args := slices.Clone(pods(t)["proxy"].Spec.InitContainers[0].Args)
	for i, arg := range args {
		// What is elsewhere here: the Pod's files, its ports, and the cluster's Vault.
		switch name, _, _ := strings.Cut(arg, "="); name {
		case "-admin":
			args[i] = "-admin=" + admin
		case "-listen":
			args[i] = "-listen=127.0.0.1:0"
		case "-address":
			args[i] = "-address=https://127.0.0.1:1"
		default:
			args[i] = strings.Replace(arg, "=/var/run/vault/", "="+files+"/", 1)
		}
	}
	program := apikeys(t)
	var out bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		// How it ended is told by what it printed.
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err == nil {
			<-exited
		}
	})
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(admin, "unix:"))
	}}}
	status := func(path string) int {
		resp, err := client.Get("http://proxy" + path)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for status("/healthz") != http.StatusOK {
		select {
		case <-exited:
			t.Fatalf("%q: it ended:\n%s", args, out.String())
		case <-late:
			t.Fatalf("%q: it is not alive", args)
		case <-tick.C:
		}
	}
	if got := status("/readyz"); got != http.StatusServiceUnavailable {
		t.Errorf("without a key it is ready: %d", got)
	}
}
