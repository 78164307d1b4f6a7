// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/api"
)

// feature is what not every server can do.
type feature int

const (
	// stepsDown says that another node takes over on demand.
	stepsDown feature = iota + 1
	// crashes says that the server is killed and comes back with its storage.
	crashes
	// runsAgent says that the server's program is an agent too.
	runsAgent
	// isReal says that it is a Vault or an OpenBao, alone, with all their auth methods.
	isReal
	// runsTerraform says that a real Terraform is at hand.
	runsTerraform
	// runsGuides says that a command line of a server is at hand, too.
	runsGuides
	// runsPrometheus says that a real Prometheus is at hand.
	runsPrometheus
)

// server is one running server, or cluster, with the plugin registered.
type server interface {
	// root may do everything.
	root() string
	// addresses of all nodes, the active one first.
	addresses(t *testing.T) []string
	can(f feature) bool
	// pluginPIDs are the plugin processes of all nodes.
	pluginPIDs(t *testing.T) []int
	seal(t *testing.T)
	unseal(t *testing.T)
	stepDown(t *testing.T)
	crash(t *testing.T)
	logs() string
}

// scenario is one thing that must hold on every server.
type scenario struct {
	name string
	run  func(t *testing.T, e *env)
	// alone is for what disturbs the other mounts of the server.
	alone bool
	needs feature
}

var scenarios = []scenario{
	// The longest of them first, so that others run beside them.
	{name: "agents with a dynamic role", run: agentsWithDynamicRole, needs: runsAgent},
	{name: "agents with a static role", run: agentsWithStaticRole, needs: runsAgent},
	{name: "first ten minutes with an agent", run: agentReadme, needs: isReal},
	{name: "Prometheus scrapes engine, edge and proxy", run: prometheusScrapes, needs: runsPrometheus},

	{name: "role defaults and every field", run: roleFields},
	{name: "role update, patch and drift", run: roleUpdates},
	{name: "role lists in pages", run: rolePages},
	{name: "fields as Terraform writes them", run: terraformWrites},
	{name: "fields of the module for Terraform", run: moduleFields},
	{name: "module for Terraform, played", run: terraformLife},
	{name: "module for Terraform", run: terraformModule, needs: runsTerraform},
	{name: "every field with Terraform", run: terraformFields, needs: runsTerraform},
	{name: "keys in a configuration of Terraform", run: terraformReads, needs: runsTerraform},
	{name: "guide to Terraform", run: terraformGuide, needs: runsGuides},
	{name: "example for Terraform", run: terraformExample, needs: runsGuides},
	{name: "role refusals", run: roleRefusals},
	{name: "role deletion and restore", run: roleDeletion},
	{name: "static key", run: staticKey},
	{name: "rotation with grace", run: rotationWithGrace},
	{name: "rotation is safe to repeat", run: rotationRepeats},
	{name: "staging, promotion, rollback", run: staging},
	{name: "activation at a time", run: activationAtATime},
	{name: "automatic rotation", run: automaticRotation},
	{name: "revocation", run: revocation},
	{name: "disabled role", run: disabledRole},
	{name: "lease life", run: leaseLife},
	{name: "lease expiry", run: leaseExpiry},
	{name: "lease ends with its token", run: leaseEndsWithToken},
	{name: "dynamic generation", run: dynamicGeneration},
	{name: "batch verification", run: batchVerification},
	{name: "edges follow decisions", run: edgesFollow},
	{name: "programs behind the proxy", run: programsBehindProxy},
	{name: "events reach a receiver", run: eventsReachAReceiver},
	{name: "events in the forms of chat and pager", run: eventForms},
	{name: "policies bind", run: policiesBind},
	{name: "policies to start from", run: startingPolicies},
	{name: "reader of a dynamic role", run: dynamicReader},
	{name: "scanner reports what it finds", run: scannerReports},
	{name: "report of the fleet", run: fleetReport},
	{name: "wrapped key", run: wrappedKey},
	{name: "answers to wrong requests", run: wrongRequests},
	{name: "help and OpenAPI", run: helpAndOpenAPI},
	{name: "disabled mount", run: disabledMount},

	{name: "Kubernetes Secrets follow a static role", run: secretsFollowStaticRole},
	{name: "Secrets Operator follows a dynamic role", run: operatorFollowsDynamicRole},
	{name: "Secrets Operator and schedules", run: operatorAndSchedules},
	{name: "External Secrets leave one-time keys", run: externalSecretsLeaveOthers},
	{name: "pipeline rotates and watches", run: pipelineDecides},

	// It has the mount that pages call apikeys/, as another one had it.
	{name: "set up as written", run: setUpAsWritten, alone: true, needs: isReal},
	{name: "a leak reaches a person", run: leakReachesAPerson, alone: true},
	{name: "plugin reload", run: pluginReload, alone: true},
	{name: "plugin killed in a storm", run: pluginKilledInStorm, alone: true},
	{name: "seal and unseal", run: sealAndUnseal, alone: true},
	{name: "agents through a killed plugin and a seal", run: agentsThroughUpheaval, alone: true, needs: isReal},
	{name: "server killed in a storm", run: serverKilledInStorm, alone: true, needs: crashes},
	{name: "every node answers", run: everyNodeAnswers, alone: true, needs: stepsDown},
	{name: "step-down in a storm", run: stepDownInStorm, alone: true, needs: stepsDown},
}

// suite is the run of all scenarios on one server.
type suite struct {
	server server

	mu   sync.Mutex
	keys map[string]bool
}

func (s *suite) run(t *testing.T) {
	// The group ends when its parallel members have: then what stands alone can begin.
	t.Run("together", func(t *testing.T) {
		for _, sc := range scenarios {
			if !sc.alone && s.takesPart(sc) {
				t.Run(sc.name, func(t *testing.T) {
					t.Parallel()
					sc.run(t, s.newEnv(t, sc.name))
				})
			}
		}
	})
	for _, sc := range scenarios {
		if sc.alone && s.takesPart(sc) {
			t.Run(sc.name, func(t *testing.T) { sc.run(t, s.newEnv(t, sc.name)) })
		}
	}
}

func (s *suite) takesPart(sc scenario) bool { return sc.needs == 0 || s.server.can(sc.needs) }

// saw remembers a key that was handed out.
func (s *suite) saw(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = map[string]bool{}
	}
	s.keys[secret] = true
}

// checkLogs looks for any key that was handed out in what the servers and the plugin wrote.
func (s *suite) checkLogs(t *testing.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	logs := s.server.logs()
	for k := range s.keys {
		if strings.Contains(logs, k) {
			t.Errorf("a whole key is in the log: %s…", k[:min(len(k), 15)])
		}
	}
	if len(s.keys) == 0 {
		t.Error("no key was handed out by the whole suite")
	}
}

// env is a mount of a scenario's own.
type env struct {
	*suite
	t      *testing.T
	mount  string
	client *api.Client
}

func (s *suite) newEnv(t *testing.T, name string) *env {
	t.Helper()
	e := &env{suite: s, t: t, mount: "keys/" + strings.NewReplacer(" ", "-", ",", "").Replace(name)}
	e.client = e.clientFor(s.server.addresses(t)[0], s.server.root())
	eventually(t, "mount", func() error {
		err := e.client.Sys().Mount(e.mount, &api.MountInput{Type: pluginName})
		if err != nil && strings.Contains(err.Error(), "in use") {
			return nil
		}
		return err
	})
	for _, addr := range s.server.addresses(t) {
		c := e.clientFor(addr, s.server.root())
		eventually(t, "the mount on "+addr, func() error {
			_, err := c.Logical().Read(e.mount + "/config")
			return err
		})
	}
	return e
}

func (s *suite) clientFor(addr, token string) *api.Client {
	cfg := api.DefaultConfig()
	cfg.Address, cfg.MaxRetries = addr, 0
	c, err := api.NewClient(cfg)
	if err != nil {
		// The configuration is the same each time, so this cannot depend on the server.
		panic(err)
	}
	c.SetToken(token)
	c.ClearNamespace()
	return c
}

// active is a client of the node that is active now.
func (e *env) active() *api.Client {
	return e.clientFor(e.server.addresses(e.t)[0], e.server.root())
}
