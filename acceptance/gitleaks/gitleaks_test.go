// SPDX-License-Identifier: MPL-2.0

// Package gitleaks_test holds the scanner's rules that key-format serves against
// the scanner itself. It is a module of its own, so that nothing of a scanner
// becomes a requirement of the engine, and an external test, because govulncheck
// does not follow the imports of tests that are part of a package.
package gitleaks_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/viper"
	"github.com/zricethezav/gitleaks/v8/config"
	"github.com/zricethezav/gitleaks/v8/detect"
	"github.com/zricethezav/gitleaks/v8/report"
	"github.com/zricethezav/gitleaks/v8/sources"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// The second one ends like the third begins; the last is as long as can be.
var prefixes = []string{"ak", "acme_live", "live", "abcdefghijklmno_abcdefghijklmnop"}

// decodeDepth is the scanner's default.
const decodeDepth = 5

func rules() string {
	all := make([]string, len(prefixes))
	for i, p := range prefixes {
		all[i] = keyformat.GitleaksRule(p)
	}
	return strings.Join(all, "\n")
}

// scan runs the scanner over a directory and returns what the rules of our
// prefixes found, by file.
func scan(t testing.TB, toml, dir string) map[string][]report.Finding {
	t.Helper()
	return scanTo(t, toml, dir, decodeDepth)
}

func scanTo(t testing.TB, toml, dir string, depth int) map[string][]report.Finding {
	t.Helper()
	v := viper.New()
	v.SetConfigType("toml")
	if err := v.ReadConfig(strings.NewReader(toml)); err != nil {
		t.Fatal(err)
	}
	var parsed config.ViperConfig
	if err := v.Unmarshal(&parsed); err != nil {
		t.Fatal(err)
	}
	cfg, err := parsed.Translate()
	if err != nil {
		t.Fatal(err)
	}
	d := detect.NewDetector(cfg)
	d.MaxDecodeDepth = depth
	findings, err := d.DetectSource(context.Background(), &sources.Files{Config: &cfg, Path: dir, Sema: d.Sema})
	if err != nil {
		t.Fatal(err)
	}
	byFile := map[string][]report.Finding{}
	for _, f := range findings {
		if !strings.HasPrefix(f.RuleID, "apikeys-") {
			continue // of the scanner's own rules
		}
		name, err := filepath.Rel(dir, f.File)
		if err != nil {
			t.Fatal(err)
		}
		byFile[name] = append(byFile[name], f)
	}
	return byFile
}

func plant(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func mint(t testing.TB, prefix string) string {
	t.Helper()
	key, err := keyformat.Mint(prefix, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key.Reveal()
}

// inFiles is a key as it is found in the open.
func inFiles(key string) map[string]string {
	return map[string]string{
		"alone":           key,
		"line.txt":        key + "\n",
		".env":            "OTHER=1\nAPI_KEY=" + key + "\nDEBUG=true\n",
		"config/app.yaml": "orders:\n  apiKey: \"" + key + "\"\n",
		"config/app.json": `{"url": "https://orders.example", "key":"` + key + `"}`,
		"src/client.go":   "const key = `" + key + "`\n",
		"src/client.py":   "client = Client(api_key='" + key + "')  # works\n",
		"run.sh":          "curl -H 'X-Api-Key: " + key + "' https://orders.example/v1\r\n",
		"access.log":      "GET /v1/orders?key=" + key + "&page=2 200\nGET /v1/orders?next=%3Fkey%3D" + key + "%26page%3D3 200\n",
		"escaped.log":     `{"body":"token\n` + key + `\n"}` + "\n",
		"glued.md":        "see _" + key + "_ and " + key + ".\n",
		"secret.yaml":     "kind: Secret\ndata:\n  key: " + base64.StdEncoding.EncodeToString([]byte("API_KEY="+key+"\n")) + "\n",
	}
}

// nearMisses look like the key and are none.
func nearMisses(key string) map[string]string {
	sep := strings.LastIndexByte(key, '_')
	prefix, body := key[:sep], key[sep+1:]
	return map[string]string{
		"short":     key[:len(key)-1] + "\n",
		"long":      key + "0\n",
		"dash":      prefix + "-" + body + "\n",
		"upper":     strings.ToUpper(key) + "\n",
		"broken":    prefix + "_" + body[:30] + "\n" + body[30:] + "\n",
		"dotted":    prefix + "_" + body[:30] + "." + body[30:] + "\n",
		"prefix":    "zz" + strings.Repeat("y", 3) + "_" + body + "\n",
		"handle":    prefix + "_" + body[:keyformat.IDLen] + "…\n",
		"redacted":  keyformat.Redact("key "+key) + "\n",
		"body only": body + "\n",
	}
}

// wrongChecksums have the form of a key; only the checksum tells.
func wrongChecksums(key string) map[string]string {
	last, swapped := []byte(key), []byte(key)
	last[len(last)-1] = other(last[len(last)-1])
	at := len(key) - keyformat.ChecksumLen - 9
	swapped[at] = other(swapped[at])
	return map[string]string{
		"typing error": string(last) + "\n",
		"secret.txt":   "key: " + string(swapped) + "\n",
		"placeholder":  key[:strings.LastIndexByte(key, '_')] + "_" + strings.Repeat("x", 61) + "\n",
	}
}

func other(c byte) byte {
	if c == '0' {
		return '1'
	}
	return '0'
}

func TestRulesFindWhatKeysLookLike(t *testing.T) {
	for name, toml := range map[string]string{
		"alone":                rules(),
		"beside the defaults'": "[extend]\nuseDefault = true\n\n" + rules(),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			type planting struct{ key, text string }
			planted, near, wrong := map[string]planting{}, map[string]planting{}, map[string]planting{}
			for i, p := range prefixes {
				key := mint(t, p)
				for kind, files := range map[string]map[string]string{"planted": inFiles(key), "near": nearMisses(key), "wrong": wrongChecksums(key)} {
					under := filepath.Join(fmt.Sprint("service-", i), kind)
					plant(t, filepath.Join(dir, under), files)
					for name, text := range files {
						map[string]map[string]planting{"planted": planted, "near": near, "wrong": wrong}[kind][filepath.Join(under, name)] = planting{key, text}
					}
				}
			}

			found := scan(t, toml, dir)
			for file, p := range planted {
				// One where the key stands in another encoding.
				want := max(1, strings.Count(p.text, p.key))
				if n := count(found[file], p.key); n < want {
					t.Errorf("%s: found %d times, want %d", file, n, want)
				}
				for _, f := range found[file] {
					if f.Secret == p.key && f.RuleID != "apikeys-"+prefixOf(t, p.key) {
						t.Errorf("%s: the key is found by rule %s", file, f.RuleID)
					}
					if _, err := keyformat.Parse(f.Secret); err == nil && f.Secret != p.key {
						t.Errorf("%s: something else passes for a key", file)
					}
				}
			}
			for file := range near {
				if len(found[file]) > 0 {
					t.Errorf("%s: a near miss is found", file)
				}
			}
			for file := range wrong {
				if len(found[file]) == 0 {
					t.Errorf("%s: what has the form of a key is not found", file)
				}
				for _, f := range found[file] {
					if _, err := keyformat.Parse(f.Secret); err == nil {
						t.Errorf("%s: a wrong checksum passes", file)
					}
				}
			}
		})
	}
}

func count(findings []report.Finding, key string) int {
	n := 0
	for _, f := range findings {
		if f.Secret == key {
			n++
		}
	}
	return n
}

func prefixOf(t *testing.T, key string) string {
	t.Helper()
	parsed, err := keyformat.Parse(key)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Prefix()
}

// The rule of the shorter prefix finds the end of the longer one's keys too, and
// the checksum tells that this is none.
func TestPrefixThatEndsLikeAnother(t *testing.T) {
	dir, key := t.TempDir(), mint(t, "acme_live")
	plant(t, dir, map[string]string{"f": "k=" + key + "\n"})
	good, bad := 0, 0
	for _, f := range scan(t, rules(), dir)["f"] {
		if _, err := keyformat.Parse(f.Secret); err == nil && f.Secret == key {
			good++
		} else {
			bad++
		}
	}
	if good != 1 || bad != 1 {
		t.Errorf("%d good and %d bad findings of one key", good, bad)
	}
}
