// SPDX-License-Identifier: MPL-2.0

// Package kubernetes_test holds what bootstrap/kubernetes and bootstrap/ci give to
// others against the rules of those who will read it. It is a module of its own, so that
// nothing of Kubernetes becomes a requirement of the engine.
package kubernetes_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const shipped = "../../bootstrap"

// directories are those of bootstrap/kubernetes, with the kinds of objects in each.
var directories = map[string][]string{
	"secrets-operator": {"ServiceAccount", "VaultAuth", "VaultConnection", "VaultDynamicSecret", "VaultDynamicSecret"},
	"external-secrets": {"ExternalSecret", "ServiceAccount", "VaultDynamicSecret"},
	"agent-injector":   {"Deployment", "ServiceAccount"},
	"proxy":            {"Deployment", "NetworkPolicy", "ServiceAccount"},
	"edge":             {"ConfigMap", "Deployment", "NetworkPolicy", "ServiceAccount"},
}

// object is one manifest, as kubectl apply -k would send it.
type object struct {
	kind, group, name string
	text              []byte
}

// built is what kustomize makes of a directory.
func built(t *testing.T, dir string) []object {
	t.Helper()
	options := krusty.MakeDefaultOptions()
	all, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), filepath.Join(shipped, "kubernetes", dir))
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	var out []object
	for _, r := range all.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, object{kind: r.GetKind(), group: r.GetApiVersion(), name: r.GetName(), text: text})
	}
	return out
}

// strictly decodes an object of one of Kubernetes' own kinds, and refuses what its type does not have.
func strictly(t *testing.T, o object, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict(o.text, into); err != nil {
		t.Errorf("%s %s: %v", o.kind, o.name, err)
	}
}

func find[T any](t *testing.T, dir, kind string) T {
	t.Helper()
	var out T
	for _, o := range built(t, dir) {
		if o.kind == kind {
			strictly(t, o, &out)
			return out
		}
	}
	t.Fatalf("%s has no %s", dir, kind)
	return out
}

// TestManifestsHaveTheFieldsOfTheirKinds decodes each object as strictly as an API server
// with field validation: an unknown or misspelt field is an error.
func TestManifestsHaveTheFieldsOfTheirKinds(t *testing.T) {
	t.Parallel()
	lists := readFields(t)
	entries, err := os.ReadDir(filepath.Join(shipped, "kubernetes"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && directories[e.Name()] == nil {
			t.Errorf("%s is not in the list of directories", e.Name())
		}
	}
	for dir, want := range directories {
		var kinds []string
		for _, o := range built(t, dir) {
			kinds = append(kinds, o.kind)
			switch o.group + " " + o.kind {
			case "v1 ServiceAccount":
				strictly(t, o, &corev1.ServiceAccount{})
			case "v1 ConfigMap":
				strictly(t, o, &corev1.ConfigMap{})
			case "apps/v1 Deployment":
				strictly(t, o, &appsv1.Deployment{})
			case "networking.k8s.io/v1 NetworkPolicy":
				strictly(t, o, &networkingv1.NetworkPolicy{})
			default:
				list, ok := lists[o.group+" "+o.kind]
				if !ok {
					t.Errorf("%s: what is %s %s?", dir, o.group, o.kind)
					continue
				}
				var custom struct {
					metav1.TypeMeta   `json:",inline"`
					metav1.ObjectMeta `json:"metadata"`
					Spec              map[string]any `json:"spec"`
				}
				strictly(t, o, &custom)
				for _, text := range list.check("spec", custom.Spec) {
					t.Errorf("%s: %s %s: %s", dir, o.kind, o.name, text)
				}
			}
		}
		slices.Sort(kinds)
		if !slices.Equal(kinds, want) {
			t.Errorf("%s has %q, want %q", dir, kinds, want)
		}
	}
}

// pods are the Deployments' Pods, by directory.
func pods(t *testing.T) map[string]corev1.PodTemplateSpec {
	t.Helper()
	out := map[string]corev1.PodTemplateSpec{}
	for _, dir := range []string{"agent-injector", "proxy", "edge"} {
		d := find[appsv1.Deployment](t, dir, "Deployment")
		if d.Spec.Selector == nil || !maps.Equal(d.Spec.Selector.MatchLabels, d.Spec.Template.Labels) {
			t.Errorf("%s: the selector %v is not the Pods' labels %v", dir, d.Spec.Selector, d.Spec.Template.Labels)
		}
		out[dir] = d.Spec.Template
	}
	return out
}

// TestPodsAreRestricted holds all Pods to the Pod Security Standard restricted, and to
// more: read-only root, bounded memory, no token that nobody asked for.
func TestPodsAreRestricted(t *testing.T) {
	t.Parallel()
	for dir, pod := range pods(t) {
		spec := pod.Spec
		sc := spec.SecurityContext
		switch {
		case sc == nil || !is(sc.RunAsNonRoot) || sc.RunAsUser == nil || *sc.RunAsUser == 0 || sc.FSGroup == nil:
			t.Errorf("%s: the Pod may run as root, or cannot read its token", dir)
		case sc.SeccompProfile == nil || sc.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault:
			t.Errorf("%s: the Pod has no seccomp profile", dir)
		}
		if spec.HostNetwork || spec.HostPID || spec.HostIPC || spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
			t.Errorf("%s: the Pod shares the host's, or has a token for the API server", dir)
		}
		if spec.ServiceAccountName != find[corev1.ServiceAccount](t, dir, "ServiceAccount").Name {
			t.Errorf("%s: the Pod runs as %q", dir, spec.ServiceAccountName)
		}
		for _, v := range spec.Volumes {
			if v.HostPath != nil {
				t.Errorf("%s: volume %s is the host's", dir, v.Name)
			}
		}
		for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
			sc := c.SecurityContext
			if sc == nil || sc.AllowPrivilegeEscalation == nil || *sc.AllowPrivilegeEscalation || is(sc.Privileged) || !is(sc.ReadOnlyRootFilesystem) ||
				sc.Capabilities == nil || !slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(sc.Capabilities.Add) > 0 {
				t.Errorf("%s: container %s may do too much: %+v", dir, c.Name, sc)
			}
			if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
				t.Errorf("%s: container %s has no bound", dir, c.Name)
			}
			if !regexp.MustCompile(`^[a-z]+:[0-9.]+$`).MatchString(c.Image) {
				t.Errorf("%s: container %s has the image %q: a name to be replaced, and a fixed tag", dir, c.Name, c.Image)
			}
		}
	}
}

func is(b *bool) bool { return b != nil && *b }

// TestTokensForVaultAlone holds the tokens to one audience and short lives, and out of
// the programs' sight.
func TestTokensForVaultAlone(t *testing.T) {
	t.Parallel()
	for dir, pod := range pods(t) {
		tokens := map[string]bool{}
		for _, v := range pod.Spec.Volumes {
			if v.Projected == nil {
				continue
			}
			for _, s := range v.Projected.Sources {
				if tok := s.ServiceAccountToken; tok == nil || tok.Audience != "vault" || tok.ExpirationSeconds == nil || *tok.ExpirationSeconds != 600 || tok.Path != "token" {
					t.Errorf("%s: the token is %+v", dir, tok)
				}
				tokens[v.Name] = true
			}
		}
		if len(tokens) != 1 {
			t.Errorf("%s: %d tokens", dir, len(tokens))
		}
		for _, c := range pod.Spec.Containers {
			for _, m := range c.VolumeMounts {
				if tokens[m.Name] {
					t.Errorf("%s: the program %s sees the token", dir, c.Name)
				}
			}
		}
	}
	for _, o := range built(t, "secrets-operator") {
		if o.kind == "VaultAuth" && !strings.Contains(string(o.text), "audiences:\n    - vault\n") {
			t.Errorf("the operator's token is for others too:\n%s", o.text)
		}
	}
}

// TestSidecarsStartFirst holds the sidecars to start before their programs, and the
// probes to ports that are there.
func TestSidecarsStartFirst(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"proxy", "edge"} {
		pod := pods(t)[dir]
		if len(pod.Spec.InitContainers) != 1 || len(pod.Spec.Containers) != 1 {
			t.Fatalf("%s: %d init containers", dir, len(pod.Spec.InitContainers))
		}
		c := pod.Spec.InitContainers[0]
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			t.Errorf("%s: the program would wait for the end of %s", dir, c.Name)
		}
		if c.StartupProbe == nil || c.ReadinessProbe == nil || c.LivenessProbe == nil {
			t.Fatalf("%s: probes %+v, %+v, %+v", dir, c.StartupProbe, c.ReadinessProbe, c.LivenessProbe)
		}
		// Alive is not ready: a restart because of Vault would throw away what is held.
		for path, probes := range map[string][]*corev1.Probe{"/readyz": {c.StartupProbe, c.ReadinessProbe}, "/healthz": {c.LivenessProbe}} {
			for _, p := range probes {
				if p.HTTPGet == nil || p.HTTPGet.Path != path || len(c.Ports) != 1 || p.HTTPGet.Port.String() != c.Ports[0].Name {
					t.Errorf("%s: a probe is %+v, want %s", dir, p.HTTPGet, path)
				}
			}
		}
		for _, m := range c.VolumeMounts {
			if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
				t.Errorf("%s: no volume %s", dir, m.Name)
			}
		}
	}
}

// TestNetworkPoliciesLetInAndOutWhatIsNeeded counts the ports: a policy that lets more
// through, or a sidecar that listens elsewhere, is noticed.
func TestNetworkPoliciesLetInAndOutWhatIsNeeded(t *testing.T) {
	t.Parallel()
	for dir, want := range map[string]struct{ in, out []int32 }{
		"proxy": {in: []int32{9001}, out: []int32{53, 53, 8200, 443}},
		"edge":  {in: []int32{8080, 9091}, out: []int32{53, 53, 8200}},
	} {
		p := find[networkingv1.NetworkPolicy](t, dir, "NetworkPolicy")
		if !slices.Equal(p.Spec.PolicyTypes, []networkingv1.PolicyType{"Ingress", "Egress"}) {
			t.Errorf("%s: the policy is about %v", dir, p.Spec.PolicyTypes)
		}
		if !maps.Equal(p.Spec.PodSelector.MatchLabels, pods(t)[dir].Labels) {
			t.Errorf("%s: the policy is for %v", dir, p.Spec.PodSelector.MatchLabels)
		}
		ports := func(where string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) []int32 {
			var out []int32
			if len(peers) == 0 || len(ports) == 0 {
				t.Errorf("%s: a rule for %s names nobody, or no port, and so all", dir, where)
			}
			for _, peer := range peers {
				if peer.IPBlock == nil && (peer.NamespaceSelector == nil || len(peer.NamespaceSelector.MatchLabels) == 0) {
					t.Errorf("%s: a rule for %s is for everybody", dir, where)
				}
			}
			for _, port := range ports {
				out = append(out, port.Port.IntVal)
			}
			return out
		}
		var in, out []int32
		for _, r := range p.Spec.Ingress {
			in = append(in, ports("what comes", r.From, r.Ports)...)
		}
		for _, r := range p.Spec.Egress {
			out = append(out, ports("what goes", r.To, r.Ports)...)
		}
		if !slices.Equal(in, want.in) || !slices.Equal(out, want.out) {
			t.Errorf("%s: in %v, out %v; want %v, %v", dir, in, out, want.in, want.out)
		}
		for _, c := range pods(t)[dir].Spec.InitContainers {
			for _, port := range c.Ports {
				if !slices.Contains(in, port.ContainerPort) {
					t.Errorf("%s: nobody may reach port %d", dir, port.ContainerPort)
				}
			}
		}
	}
}

// TestAnnotationsAreTheInjectors holds each annotation against the injector's list, and
// those of one secret against each other.
func TestAnnotationsAreTheInjectors(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/annotations.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(string(raw))
	pod := pods(t)["agent-injector"]
	for annotation, value := range pod.Annotations {
		name, ok := strings.CutPrefix(annotation, "vault.hashicorp.com/")
		named := strings.TrimSuffix(name, "orders.key")
		if !ok || !slices.Contains(known, named) || (named == name && strings.HasSuffix(name, "-")) {
			t.Errorf("the injector does not know %s", annotation)
		}
		if name == "agent-inject" && value != "true" {
			t.Errorf("%s is %q", annotation, value)
		}
	}
	a := func(name string) string { return pod.Annotations["vault.hashicorp.com/"+name] }
	if path := a("agent-inject-secret-orders.key"); path == "" || !strings.Contains(a("agent-inject-template-orders.key"), `secret "`+path+`"`) {
		t.Errorf("the template does not read %q", path)
	}
	volume := a("agent-service-account-token-volume-name")
	if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == volume }) {
		t.Errorf("there is no volume %q for the agent's token", volume)
	}
	if container := a("agent-inject-containers"); container != pod.Spec.Containers[0].Name {
		t.Errorf("the file is for the container %q", container)
	}
	if a("agent-run-as-same-user") == "true" && pod.Spec.Containers[0].SecurityContext.RunAsUser == nil {
		t.Error("the injector refuses agent-run-as-same-user where the container does not say its user")
	}
}

// graceOf is the grace_period that a README gives a role, since a refresh has to fit to it.
func graceOf(t *testing.T, readme, role string) time.Duration {
	t.Helper()
	raw, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`vault write apikeys/roles/` + role + ` [^\n]*grace_period=(\S+)`).FindSubmatch(raw)
	if m == nil {
		t.Fatalf("%s: no grace_period for %s", readme, role)
	}
	d, err := time.ParseDuration(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// kubeletDelay is how long a mounted Secret may lag behind the object.
const kubeletDelay = 2 * time.Minute

// TestRefreshFitsTheGrace holds the External Secrets' interval, which nothing but its
// author ties to the role: below half the grace, mounted files included.
func TestRefreshFitsTheGrace(t *testing.T) {
	t.Parallel()
	grace := graceOf(t, filepath.Join(shipped, "kubernetes", "README.md"), "orders")
	for _, o := range built(t, "external-secrets") {
		if o.kind != "ExternalSecret" {
			continue
		}
		var es struct {
			Spec struct {
				RefreshInterval string `json:"refreshInterval"`
				RefreshPolicy   string `json:"refreshPolicy"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal(o.text, &es); err != nil {
			t.Fatal(err)
		}
		every, err := time.ParseDuration(es.Spec.RefreshInterval)
		if err != nil {
			t.Fatal(err)
		}
		if es.Spec.RefreshPolicy != "Periodic" || every <= 0 || every+kubeletDelay >= grace/2 {
			t.Errorf("the Secret is refreshed %s every %s, and the grace is %s", es.Spec.RefreshPolicy, every, grace)
		}
	}
}

// TestSecretsHoldTheKeyAlone holds what goes into a Secret: all else of an answer changes
// without a rotation, and with it the Secret.
func TestSecretsHoldTheKeyAlone(t *testing.T) {
	t.Parallel()
	operated := 0
	for _, o := range built(t, "secrets-operator") {
		if o.kind != "VaultDynamicSecret" {
			continue
		}
		operated++
		var vds struct {
			Spec struct {
				AllowStaticCreds bool           `json:"allowStaticCreds"`
				Path             string         `json:"path"`
				Params           map[string]any `json:"params"`
				Destination      struct {
					Transformation struct {
						Includes   []string `json:"includes"`
						ExcludeRaw bool     `json:"excludeRaw"`
					} `json:"transformation"`
				} `json:"destination"`
				RolloutRestartTargets []any `json:"rolloutRestartTargets"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal(o.text, &vds); err != nil {
			t.Fatal(err)
		}
		s := vds.Spec
		if got := s.Destination.Transformation; !slices.Equal(got.Includes, []string{"^api_key$"}) || !got.ExcludeRaw {
			t.Errorf("%s: the Secret has %+v", o.name, got)
		}
		if static := s.Path == "creds/orders"; s.AllowStaticCreds != static || len(s.RolloutRestartTargets) != 1 || len(s.Params) > 0 {
			t.Errorf("%s: %+v", o.name, s)
		}
	}
	if operated != 2 {
		t.Errorf("%d resources of the Secrets Operator, want one for each type of role", operated)
	}
	for _, o := range built(t, "external-secrets") {
		if o.kind != "ExternalSecret" {
			continue
		}
		var es struct {
			Spec struct {
				Target struct {
					Template struct {
						MergePolicy string            `json:"mergePolicy"`
						Data        map[string]string `json:"data"`
					} `json:"template"`
				} `json:"target"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal(o.text, &es); err != nil {
			t.Fatal(err)
		}
		got := es.Spec.Target.Template
		if got.MergePolicy != "Replace" || !maps.Equal(got.Data, map[string]string{"api_key": "{{ .api_key }}"}) {
			t.Errorf("the Secret has %+v", got)
		}
	}
}
